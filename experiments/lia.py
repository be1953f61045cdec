"""Linked increases (RFC 6356) as a congestion control of the kernel, for as long as this program runs.

    python -m experiments.lia NAME      register it as NAME, report `ready`, end with standard input
    python -m experiments.lia --probe   register it once; exit code 1 and the reason when that cannot be

`lia.bpf.c` is compiled by clang for BPF and given to the kernel by libbpf. The registration is a BPF link of this process:
when the process ends in any way, the kernel takes it back. It needs real root, and the kernel's types in
/sys/kernel/btf/vmlinux. A congestion control belongs to the whole machine, so each run needs a name of its own.
"""

import ctypes
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from experiments.peers.common import report

SOURCE = Path(__file__).with_name("lia.bpf.c")
TYPES = Path("/sys/kernel/btf/vmlinux")
_VARIABLE = b"lia"
_BPF_F_LINK = 1 << 13
_BPF_STRUCT_OPS = 44
"""enum bpf_attach_type."""
_COMPILE_TIMEOUT_S = 60


class Refused(Exception):
    """The machine cannot have it; the text says why, in one line."""


def own_name() -> str:
    """A name that no other run has; the kernel allows 15 letters, digits, dots and underscores."""
    return f"lia_{secrets.token_hex(4)}"


def compile_as(name: str, folder: Path) -> Path:
    """The object file. Raises Refused."""
    out = folder / "lia.o"
    command = ["clang", "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", f'-DNAME="{name}"']
    try:
        done = subprocess.run(
            [*command, "-c", str(SOURCE), "-o", str(out)], capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S
        )
    except FileNotFoundError:
        raise Refused("clang is not installed: Debian package clang") from None
    except subprocess.TimeoutExpired:
        raise Refused(f"clang: no end within {_COMPILE_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise Refused(f"clang: {(done.stderr.strip().splitlines() or ['no reason given'])[0]}")
    return out


def register(program: Path) -> int:
    """Give the program to the kernel; returns the descriptor that keeps it there. Raises Refused."""
    if not TYPES.exists():
        raise Refused(f"{TYPES} is missing: a kernel with CONFIG_DEBUG_INFO_BTF")
    try:
        bpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError:
        raise Refused("libbpf.so.1 is missing: Debian package libbpf1") from None
    for function in (bpf.bpf_object__open_file, bpf.bpf_object__find_map_by_name, bpf.bpf_map__attach_struct_ops):
        function.restype = ctypes.c_void_p
    bpf.libbpf_set_print(None)  # what the verifier thinks of every instruction
    handle = ctypes.c_void_p(_checked(bpf.bpf_object__open_file(str(program).encode(), None), "libbpf cannot read the program"))
    operations = ctypes.c_void_p(_checked(bpf.bpf_object__find_map_by_name(handle, _VARIABLE), "the program has no operations"))
    bpf.bpf_map__set_map_flags(operations, _BPF_F_LINK)
    if bpf.bpf_object__load(handle) != 0:
        raise Refused(f"the kernel refuses the program: {_errno_text()}")
    _checked(bpf.bpf_map__attach_struct_ops(operations), "the kernel refuses the operations")
    link: int = bpf.bpf_link_create(bpf.bpf_map__fd(operations), 0, _BPF_STRUCT_OPS, None)
    if link < 0:
        raise Refused(f"the kernel refuses the registration: {_errno_text()}")
    return link


def _checked(pointer: int | None, what: str) -> int:
    if not pointer:
        raise Refused(f"{what}: {_errno_text()}")
    return pointer


def _errno_text() -> str:
    return os.strerror(ctypes.get_errno())


def main() -> int:
    """Command line, see the module's text."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    probe = sys.argv[1] == "--probe"
    name = own_name() if probe else sys.argv[1]
    try:
        with tempfile.TemporaryDirectory() as folder:
            register(compile_as(name, Path(folder)))
    except Refused as reason:
        if not probe:
            report("error", reason=str(reason))
        print(reason, file=sys.stderr)
        return 1
    if not probe:
        report("ready", name=name)
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
