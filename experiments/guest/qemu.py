"""QEMU: its command line for each flavour of guest, and whether this machine can run it.

Under `-icount shift=0,sleep=off` the guest's clock counts instructions, 1 ns each, and jumps over idle time: what happens in
the guest does not depend on the load of the host. The emulated CPU is then one, and slower than a real one.
Randomness comes from the emulated CPU's own instruction, which `-seed` makes repeatable. Devices that answer when the host gets
round to it (disks, shared folders, a random number device) would bring the host's timing in; while a run proceeds none is used,
and the port for results answers at once (`ioeventfd=off`). QEMU's main loop, a thread of its own, adds the idle time to the
clock; so that it never does before the CPU's last instructions have been counted, QEMU runs as if it recorded the run
(`rr=record`, to nowhere): then the two take turns. Without that, some sleep out of thousands lasts longer on a busy host.
Then the same run gives the same packets to the nanosecond.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import RoamlabError
from experiments.guest.inside import RESULTS_PORT

PROGRAM = "qemu-system-x86_64"
VIRTUAL_TIME, TCG, KVM = "virtual-time", "tcg", "kvm"
FLAVOURS = (VIRTUAL_TIME, TCG, KVM)
"""virtual-time: the clock counts instructions. tcg: software emulation in real time. kvm: hardware virtualisation."""
MEMORY_MIB = 768
_HOST_SPARE_MIB = 256
_EPOCH = "2026-01-01T00:00:00"
"""The guest's calendar always starts here: a run must not depend on when it happens."""
_EMULATED_CPU = "max,la57=off,avx=off,avx2=off"
"""Without what takes longer to emulate than it saves: wide vectors, a fifth level of page tables."""
_ICOUNT = "shift=0,sleep=off,rr=record,rrfile=/dev/null"
_ACCELERATORS = {
    VIRTUAL_TIME: ["-accel", "tcg,thread=single,tb-size=256", "-icount", _ICOUNT, "-cpu", _EMULATED_CPU],
    TCG: ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", _EMULATED_CPU],
    KVM: ["-accel", "kvm", "-cpu", "host"],
}
_KERNEL_ARGUMENTS = (
    "console=ttyS0", "loglevel=4", "panic=-1", "rdinit=/init",
    "tsc=reliable", "no_timer_check", "mitigations=off", "random.trust_cpu=on", "nokaslr", "rcupdate.rcu_expedited=1",
    "norandmaps",  # programs lie at the same addresses in every process: what has been translated once is used again
)  # fmt: skip


@dataclass(frozen=True)
class Boot:
    """What a boot needs. `terminal`: the guest's task talks to this process's standard input and output."""

    flavour: str
    kernel: Path
    root: Path
    root_bytes: int
    initrd: Path
    console: Path
    reports: Path
    results: Path
    seed: int = 1
    memory_mib: int = MEMORY_MIB
    terminal: bool = False


def command_line(boot: Boot) -> list[str]:
    """QEMU with this boot, ended by the kernel when the process that starts it ends."""
    real_time = boot.flavour == KVM
    clock = ["-rtc", "base=utc"] if real_time else ["-rtc", f"clock=vm,base={_EPOCH}"]
    address_space_mib = boot.memory_mib + 2 * (boot.root_bytes >> 20) + 1024  # the root file system lies in it as well
    terminal = "stdio,signal=off" if boot.terminal else "null"
    return [
        "setpriv", "--pdeathsig", "KILL", "--",
        PROGRAM, "-M", "q35", *_ACCELERATORS[boot.flavour], "-smp", "1",
        "-m", f"{boot.memory_mib}M,slots=1,maxmem={address_space_mib}M",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none",
        "-seed", str(boot.seed), *clock,
        "-kernel", str(boot.kernel), "-initrd", str(boot.initrd), "-append", " ".join(_KERNEL_ARGUMENTS),
        "-object", f"memory-backend-file,id=root,mem-path={_escaped(boot.root)},size={boot.root_bytes},share=on,readonly=on",
        "-device", "virtio-pmem-pci,memdev=root",
        "-chardev", f"file,id=console,path={_escaped(boot.console)}", "-serial", "chardev:console",
        "-chardev", f"file,id=reports,path={_escaped(boot.reports)}", "-serial", "chardev:reports",
        "-device", "virtio-serial-pci,ioeventfd=off",
        "-chardev", f"file,id=results,path={_escaped(boot.results)}",
        "-device", f"virtserialport,chardev=results,name={RESULTS_PORT}",
        "-chardev", f"{terminal},id=terminal", "-device", "virtconsole,chardev=terminal",
    ]  # fmt: skip


def _escaped(path: Path) -> str:
    """A path as the value of a QEMU option, in which a comma ends the value."""
    return str(path).replace(",", ",,")


def require(memory_mib: int = MEMORY_MIB) -> None:
    """Raises RoamlabError when QEMU is not here or the guest does not fit into the memory."""
    if shutil.which(PROGRAM) is None:
        raise RoamlabError(f"{PROGRAM} is not installed: run `make setup-test` (Debian package qemu-system-x86)")
    if shutil.which("setpriv") is None:
        raise RoamlabError("setpriv is not installed: run `make setup` (Debian package util-linux)")
    available = available_mib(Path("/proc/meminfo").read_text())
    if available is not None and available < memory_mib + _HOST_SPARE_MIB:
        raise RoamlabError(f"the guest needs {memory_mib + _HOST_SPARE_MIB} MiB of memory, {available} MiB are available: "
                           "end other programs, or run fewer guests at a time (--jobs)")  # fmt: skip


def available_mib(meminfo: str) -> int | None:
    """Memory that new programs can have, from the text of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return None


def version() -> str:
    """QEMU's own words."""
    done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True)
    return done.stdout.splitlines()[0].removeprefix("QEMU emulator version ") if done.stdout else "unknown"
