"""Does `vagrant up` work? `make vagrant-test` builds a box, brings it up and tests in it, under software emulation.

Nothing of the host is used or changed: libvirtd and all that it starts live in a capsule (network, mount and process
namespaces of its own) with folders of their own, and end with it however this program ends. No network is needed once the
box is built: the capsule has none, and so the machine has none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from experiments import capsule
from experiments.errors import RoamlabError
from tests.processes import all_processes, namespaces
from topologies.waiting import wait_until

BUILD = capsule.ROOT / "build" / "vagrant"
BOX_NAME = "roamlab/bookworm64"
URI = "qemu:///system"
# Generous: a machine under software emulation, beside other work.
BOX_TIMEOUT_S, UP_TIMEOUT_S, TESTS_TIMEOUT_S, STEP_TIMEOUT_S = 1800, 5400, 2700, 600
GONE_WITHIN_S = 15
FREE_BYTES, AVAILABLE_BYTES = 9_000_000_000, 3_000_000_000
PROGRAMS = {
    "vagrant": "vagrant", "libvirtd": "libvirt-daemon", "virsh": "libvirt-clients", "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils", "dnsmasq": "dnsmasq-base", "iptables": "iptables", "rsync": "rsync", "ssh": "openssh-client",
    "git": "git",
}  # fmt: skip
FILES = {
    "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so": "libvirt-daemon-driver-qemu",
    "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_network.so": "libvirt-daemon",
    "/lib/systemd/system/libvirtd.service": "libvirt-daemon-system libvirt-daemon-system-sysv",  # users for libvirtd
}
# All of `make demo` takes three times as long: ROAMLAB_DEMO="make demo JOBS=1" has it.
DEMO = ".venv/bin/roamlab run demo --scenario carrier-loss --jobs 1"
TESTS = ("tests/emulation/test_capsule.py", "tests/emulation/test_topologies.py")
# What `vagrant up` says when a part of it begins. The last line says the end of the last part.
PARTS = (
    ("up: image into the storage pool", re.compile(r"Bringing machine ")),
    ("up: boot until ssh answers", re.compile(r"Starting domain")),
    ("up: key, sources", re.compile(r"Machine booted and ready|Setting hostname|Rsyncing folder")),
    ("up: provision (`make setup`)", re.compile(r"Running provisioner: setup")),
    ("up: smoke (2 runs of the demo and their report)", re.compile(r"Running action triggers after up")),
    ("up: results copied back", re.compile(r"^roamlab vagrant-results: asking")),
)


class Trouble(Exception):
    """One line: what went wrong and what helps."""


# ---- inside the capsule ---------------------------------------------------------------------------------------------------


class Inside:
    """The steps in the capsule. `folder` holds the box, a copy of the sources, and everything that is written."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project = folder, folder / "project"
        self.environment = {
            **os.environ, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "VAGRANT_HOME": str(folder / "vagrant"),
            "VAGRANT_DEFAULT_PROVIDER": "libvirt", "VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_BOX_UPDATE_CHECK_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1", "ROAMLAB_BOX": BOX_NAME, "ROAMLAB_DRIVER": "qemu", "ROAMLAB_BOOT_TIMEOUT": "1800",
            "ROAMLAB_DEMO": os.environ.get("ROAMLAB_DEMO") or DEMO,
        }  # fmt: skip
        for name in ("home", "tmp", "vagrant", "images", "log"):
            (folder / name).mkdir()

    def all_steps(self) -> None:
        """Everything; raises Trouble."""
        note(self.folder, namespaces=sorted(namespaces([os.getpid()])))
        self._folders_of_libvirt()
        daemon = self._start_libvirtd()
        try:
            with timed(self.folder, "box: add to Vagrant"):
                self._vagrant("box", "add", "--name", BOX_NAME, str(self.folder / "roamlab.box"), timeout_s=STEP_TIMEOUT_S)
            self._up()
            self._check_results()
            with timed(self.folder, "smoke: part of the emulation tests"):
                command = f"cd /vagrant && .venv/bin/python -m pytest -q -p no:cacheprovider {' '.join(TESTS)}"
                output = self._vagrant("ssh", "-c", command, "--", "-T", timeout_s=TESTS_TIMEOUT_S)
            note(self.folder, tests=next((line for line in reversed(output) if " passed" in line), "?").strip("= "))
            with timed(self.folder, "destroy"):
                self._vagrant("destroy", "--force", timeout_s=STEP_TIMEOUT_S)
            left = self._virsh("list", "--all", "--name")
            if left:
                raise Trouble(f"vagrant destroy left the domain {left}")
        finally:
            for domain in self._virsh("list", "--name").split():
                self._virsh("destroy", domain)
            daemon.terminate()
            daemon.wait()

    def _folders_of_libvirt(self) -> None:
        """Own folders over those of the host's libvirt; the capsule has an own /run already."""
        for name in ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"):
            run(["mount", "-t", "tmpfs", "tmpfs", name])
        Path("/var/lib/libvirt/images").mkdir()
        run(["mount", "--bind", str(self.folder / "images"), "/var/lib/libvirt/images"])
        # No security driver, no cgroups, no change of owners: what is not the capsule's own stays untouched.
        Path("/etc/libvirt/qemu.conf").write_text(
            'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nstdio_handler = "file"\nnamespaces = []\n'
            "cgroup_controllers = []\nremember_owner = 0\ndynamic_ownership = 0\n"
        )
        Path("/etc/libvirt/libvirtd.conf").write_text(
            'auth_unix_ro = "none"\nauth_unix_rw = "none"\nunix_sock_rw_perms = "0700"\n'
            f'log_outputs = "2:file:{self.folder}/log/libvirtd.log"\n'
        )

    def _start_libvirtd(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log" / "libvirtd.out").open("wb") as out:
            daemon = subprocess.Popen(["libvirtd"], stdout=out, stderr=out, stdin=subprocess.DEVNULL)

        def ready() -> bool:
            if daemon.poll() is not None:
                log = (self.folder / "log" / "libvirtd.out").read_text(errors="replace").strip().splitlines()
                raise Trouble(f"libvirtd ended: {log[-1] if log else daemon.returncode} (package libvirt-daemon-system "
                              "makes the users that it needs)")  # fmt: skip
            return subprocess.run(["virsh", "-q", "-c", URI, "version"], capture_output=True).returncode == 0

        try:
            wait_until(ready, 60, "libvirtd answers", poll_s=0.2)
        except TimeoutError as error:
            raise Trouble(f"{error}: see libvirtd.log with --keep") from None
        return daemon

    def _up(self) -> None:
        begun, parts = time.monotonic(), [*PARTS]
        current: tuple[str, float] | None = None

        def part(line: str) -> None:
            nonlocal current
            for index, (name, pattern) in enumerate(parts):
                if pattern.search(line):
                    if current:
                        note(self.folder, step=current[0], s=time.monotonic() - current[1])
                    current = (name, time.monotonic())
                    del parts[: index + 1]
                    return

        self._vagrant("up", "--no-color", timeout_s=UP_TIMEOUT_S, each=part)
        if current:
            note(self.folder, step=current[0], s=time.monotonic() - current[1])
        note(self.folder, step="`vagrant up`, all of it", s=time.monotonic() - begun)

    def _check_results(self) -> None:
        """The report has come back, made in the machine."""
        results = self.project / "results" / "vagrant" / "demo"
        reports, manifests = list(results.glob("*.html")), list(results.glob("*/manifest.json"))
        if not reports or not manifests:
            raise Trouble(f"vagrant up ended without a report in {results.relative_to(self.project)}")
        kernels = {json.loads(path.read_text())["kernel"] for path in manifests}
        commits = {json.loads(path.read_text())["roamlab"]["commit"] for path in manifests}
        if platform.release() in kernels:
            raise Trouble(f"the demo did not run in the machine: its kernel is this one's, {platform.release()}")
        metrics = [json.loads(path.read_text()) for path in results.glob("*/metrics.json")]
        note(self.folder, demo=self.environment["ROAMLAB_DEMO"], judged=sum(bool(m["judged"]) for m in metrics))
        note(self.folder, runs=len(manifests), kernel=", ".join(sorted(kernels)), commit=", ".join(sorted(map(str, commits))))

    def _vagrant(self, *arguments: str, timeout_s: float, each: Any = None) -> list[str]:
        return stream(["vagrant", *arguments], timeout_s, cwd=self.project, environment=self.environment, each=each)

    def _virsh(self, *arguments: str) -> str:
        done = subprocess.run(["virsh", "-q", "-c", URI, *arguments], capture_output=True, text=True, timeout=STEP_TIMEOUT_S)
        return done.stdout.strip()


# ---- both sides -----------------------------------------------------------------------------------------------------------


def note(folder: Path, **what: Any) -> None:
    """Write down a time or a fact."""
    with (folder / "notes.jsonl").open("a") as out:
        out.write(json.dumps(what) + "\n")


def notes(folder: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in (folder / "notes.jsonl").read_text().splitlines()]
    except FileNotFoundError:
        return []


@contextmanager
def timed(folder: Path, step: str) -> Iterator[None]:
    print(f"roamlab vagrant-test: {step}", flush=True)
    begun = time.monotonic()
    yield
    note(folder, step=step, s=time.monotonic() - begun)


def run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=STEP_TIMEOUT_S)
    if done.returncode != 0:
        raise Trouble(f"{' '.join(argv)}: {done.stderr.strip()[-300:]}")
    return done.stdout


def stream(argv: list[str], timeout_s: float, *, cwd: Path, environment: dict[str, str], each: Any = None) -> list[str]:
    """Run a program, pass its output on; its lines. Raises Trouble when it fails or takes too long."""
    name = " ".join(argv[:2])
    lines: list[str] = []
    process = subprocess.Popen(argv, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               stdin=subprocess.DEVNULL, text=True, errors="replace", start_new_session=True)  # fmt: skip
    assert process.stdout is not None
    late = False

    def end(*_: object) -> None:
        nonlocal late
        late = True
        os.killpg(process.pid, signal.SIGKILL)

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        for line in process.stdout:
            if "Progress: " in line:
                continue
            print(line, end="", flush=True)
            lines.append(line.rstrip())
            if each:
                each(lines[-1])
        code = process.wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if late:
        raise Trouble(f"{name}: not within {timeout_s:.0f} s: the machine is too busy, or what it waits for is above")
    if code != 0:
        raise Trouble(f"{name} failed with exit code {code}: its last words are above")
    return lines


# ---- outside --------------------------------------------------------------------------------------------------------------


def check_machine() -> None:
    """Raise Trouble with everything that is missing, in one line."""
    if os.geteuid() != 0:
        raise Trouble("this test needs root, for libvirtd: sudo make vagrant-test")
    path = capsule.environment()["PATH"]
    packages = [package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None]
    packages += [package for file, package in FILES.items() if not Path(file).exists()]
    if shutil.which("vagrant", path=path):
        done = subprocess.run(["vagrant", "plugin", "list"], capture_output=True, text=True, timeout=STEP_TIMEOUT_S)
        packages += [] if "vagrant-libvirt" in done.stdout else ["vagrant-libvirt"]
    else:
        packages.append("vagrant-libvirt")
    if packages:
        names = " ".join(dict.fromkeys(packages))
        raise Trouble(f"programs are missing: apt-get install --no-install-recommends {names}")
    BUILD.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(BUILD).free
    if free < FREE_BYTES:
        raise Trouble(f"{BUILD}: {free / 1e9:.1f} GB free, the test takes {FREE_BYTES / 1e9:.0f} GB: make room")
    memory = int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) * 1024  # type: ignore[index]
    if memory < AVAILABLE_BYTES:
        raise Trouble(
            f"{memory / 1e9:.1f} GB of memory available, the machine takes {AVAILABLE_BYTES / 1e9:.0f} GB: end something"
        )
    if why := capsule.why_not():
        raise Trouble(why)


def host_state() -> dict[str, set[str]]:
    """What must be after the test as it was before. Other interfaces and mounts may come and go: others work here as well."""
    links = [line.split()[0] for line in run(["ip", "-br", "link"]).splitlines()]
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return {
        "interface": {name for name in links if re.match("virbr|vnet|macvtap|tap", name)},
        "mount": {mount for mount in mounts if "libvirt" in mount or str(BUILD) in mount},
        "file": {str(path) for path in Path("/run").glob("libvirt/**/*")},
    }


def left_behind(folder: Path, before: dict[str, set[str]]) -> list[str]:
    """What the test should have removed: a process in one of its namespaces, or a change of the host."""
    own = {name for line in notes(folder) for name in line.get("namespaces", ())}

    def uses_folder(pid: int) -> bool:
        with suppress(OSError):
            places = [os.readlink(f"/proc/{pid}/{kind}") for kind in ("root", "cwd")]
            places.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"))
            return pid != os.getpid() and any(str(folder) in place for place in places)
        return False

    def processes() -> list[int]:
        return [pid for pid in all_processes() if namespaces([pid]) & own or uses_folder(pid)]

    with suppress(TimeoutError):
        wait_until(lambda: not processes(), GONE_WITHIN_S, "end of all processes", poll_s=0.1)
    left = [f"process {pid}" for pid in processes()]
    return left + [f"{kind} {name}" for kind, names in host_state().items() for name in sorted(names - before[kind])]


def build_box(folder: Path) -> None:
    """Out of the copy: the checkout may change meanwhile, and the box must fit it."""
    script = folder / "project" / "tools" / "vagrant" / "box.sh"
    argv = ["setpriv", "--pdeathsig", "TERM", "--", str(script), str(folder / "roamlab.box")]
    process = subprocess.Popen(argv, start_new_session=True)
    try:
        code = process.wait(BOX_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Trouble(f"the box was not built within {BOX_TIMEOUT_S} s") from None
    finally:
        process.terminate()  # it removes what it has begun
        process.wait()
    if code != 0:
        raise Trouble("the box was not built: see above")


def check_box(box: Path) -> None:
    """A box of another state of the checkout would need the network. Raises Trouble."""
    if not box.is_file():
        raise Trouble(f"{box}: no such file: make vagrant-box builds build/vagrant/roamlab.box")
    text = run(["tar", "-xOf", str(box), "./metadata.json"])
    state = b"".join((capsule.ROOT / name).read_bytes() for name in ("requirements.lock", "pyproject.toml"))
    if json.loads(text).get("roamlab") != hashlib.sha256(state).hexdigest():
        raise Trouble(f"{box}: built from another requirements.lock or pyproject.toml: make vagrant-box builds it again")


def copy_project(project: Path) -> None:
    """The checkout, with its history: what somebody has who cloned it."""
    git = ["git", "-c", f"safe.directory={capsule.ROOT}", "-C", str(capsule.ROOT)]
    files = subprocess.run([*git, "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True, check=True).stdout
    project.mkdir()
    copy = ["rsync", "-a", "--from0", "--files-from=-", "--ignore-missing-args", f"{capsule.ROOT}/", f"{project}/"]
    subprocess.run(copy, input=files, check=True)
    if (capsule.ROOT / ".git").is_dir():
        shutil.copytree(capsule.ROOT / ".git", project / ".git", symlinks=True)


def in_capsule(folder: Path) -> None:
    """The steps that need libvirt. Raises Trouble when one fails; what it says comes from inside."""
    box = capsule.launch([sys.executable, "-m", "tools.vagrant.test", "--inside", str(folder)], user_namespace=False)
    try:
        code = box.wait()
    finally:
        box.close()
        box.wait()
    if code != 0:
        told = [line["trouble"] for line in notes(folder) if "trouble" in line]
        raise Trouble(told[-1] if told else f"the capsule ended with code {code}")


def table(folder: Path) -> list[str]:
    lines = ["| step | s |", "|---|--:|"]
    return lines + [f"| {line['step']} | {line['s']:.0f} |" for line in notes(folder) if "step" in line]


def page(folder: Path, load: str, box_bytes: int) -> str:
    """The page for docs/results."""
    facts = {key: value for line in notes(folder) for key, value in line.items() if key not in ("step", "s")}
    version = subprocess.run(["vagrant", "--version"], capture_output=True, text=True).stdout.split()[-1]
    daemon = subprocess.run(["libvirtd", "--version"], capture_output=True, text=True).stdout.split()[-1]
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True).stdout.split()[3]
    model = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    machine = f"{os.cpu_count()} x {model[0] if model else platform.machine()}, Linux {platform.release()}"
    lines = [
        "# `vagrant up` under software emulation", "",
        "Written by `make vagrant-test MARKDOWN=docs/results/vagrant-test.md`: a box is built, brought up by the checkout's",
        "Vagrantfile, tested in and destroyed. Seconds of wall clock.", "",
        f"Machine: {machine}, load average {load} before and {os.getloadavg()[0]:.1f} after.",
        f"Vagrant {version}, libvirt {daemon}, QEMU {qemu} without KVM.", "",
        *table(folder), "",
        f"* Box: {box_bytes / 1e6:.0f} MB. Kernel in the machine: {facts.get('kernel')}.",
        f"* Smoke: `{facts.get('demo')}`: {facts.get('runs')} runs, {facts.get('judged')} of them judged;",
        "  the report was copied back.",
        f"* Tests in the machine ({', '.join(f'`{name}`' for name in TESTS)}): {facts.get('tests')}.",
        "* The machine had no way to any network. Afterwards no process, interface, mount, network namespace or file of",
        "  libvirt was left.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def interrupted(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def outside(options: argparse.Namespace) -> None:
    check_machine()
    if options.box:
        check_box(options.box)
    for old in BUILD.glob("test.*"):  # of tests that were killed
        if not Path(f"/proc/{old.name.split('.')[1]}").exists():
            shutil.rmtree(old, ignore_errors=True)
    load, before = f"{os.getloadavg()[0]:.1f}", host_state()
    folder = Path(tempfile.mkdtemp(prefix=f"test.{os.getpid()}.", dir=BUILD))
    try:
        try:
            copy_project(folder / "project")
            if options.box:
                (folder / "roamlab.box").symlink_to(options.box.resolve(strict=True))
            else:
                with timed(folder, "box: build"):
                    build_box(folder)
            in_capsule(folder)
        finally:
            print("\n".join(table(folder)))
            if things := left_behind(folder, before):
                raise Trouble(f"left behind: {', '.join(things)}")
            print("roamlab vagrant-test: nothing is left behind", flush=True)
        if options.markdown:
            options.markdown.write_text(page(folder, load, (folder / "roamlab.box").stat().st_size))
    finally:
        if options.keep:
            print(f"roamlab vagrant-test: kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--box", type=Path, metavar="FILE", help="a box that was built before")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page")
    parser.add_argument("--keep", action="store_true", help="keep the folder with disk and logs")
    parser.add_argument("--inside", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        if options.inside:
            Inside(options.inside).all_steps()
            return 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, interrupted)
        outside(options)
    except (Trouble, RoamlabError, TimeoutError, OSError, subprocess.SubprocessError) as error:
        if options.inside:
            note(options.inside, trouble=str(error))
        else:
            print(f"roamlab vagrant-test: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if not options.inside:
            print("roamlab vagrant-test: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
