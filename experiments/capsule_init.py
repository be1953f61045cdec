"""First process of a capsule (PID 1 of its PID namespace). Standard library only: it starts in milliseconds.

    python capsule_init.py LIFELINE_FD COMMAND [ARGUMENT...]

LIFELINE_FD is the read end of a pipe whose write end only the runner holds. A byte on it asks for a graceful end (SIGTERM
to the command); end of file means that the runner is gone: this process exits, and with PID 1 the kernel ends every
process and every namespace of the capsule. Exit code: that of the command.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

_MS_PRIVATE_REC = 0x44000
_libc = ctypes.CDLL(None, use_errno=True)


def _mount(kind: str, target: str, options: str = "") -> None:
    if _libc.mount(kind.encode(), target.encode(), kind.encode(), 0, options.encode()) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"capsule: mount {kind} on {target}: {os.strerror(error)}")


def _prepare() -> None:
    """Private /run, /sys of the new network namespace, loopback, temporary files that die with the capsule."""
    _libc.mount(b"none", b"/", None, _MS_PRIVATE_REC, None)
    _mount("tmpfs", "/run", "mode=0755")
    _mount("sysfs", "/sys")
    os.makedirs("/run/netns")
    os.makedirs("/run/roamlab/tmp")
    os.environ["TMPDIR"] = "/run/roamlab/tmp"
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    os.environ["ROAMLAB_CAPSULE"] = "1"
    if subprocess.run(["ip", "link", "set", "lo", "up"], check=False).returncode != 0:
        raise OSError("capsule: ip link set lo up failed")
    subprocess.run(["hostname", "capsule"], check=False)  # cosmetic: the prompt of an interactive shell


def _watch(lifeline: int, command: "subprocess.Popen[bytes]") -> None:
    while os.read(lifeline, 1):
        os.kill(command.pid, signal.SIGTERM)  # not send_signal(): it would reap the command
    os._exit(129)


def _reap(command: "subprocess.Popen[bytes]") -> int:
    """Wait for the command; collect orphans that were handed to PID 1 meanwhile."""
    while True:
        pid, status = os.wait()
        if pid == command.pid:
            return os.waitstatus_to_exitcode(status)


def main() -> int:
    """Prepare the capsule, run the command, return its exit code (128 + signal when a signal ended it)."""
    lifeline = int(sys.argv[1])
    os.set_inheritable(lifeline, False)
    try:
        _prepare()
    except OSError as error:
        print(error, file=sys.stderr)
        return 125
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the command decides; PID 1 stays until it is gone
        signal.signal(number, lambda *_: None)
    command = subprocess.Popen(sys.argv[2:])
    threading.Thread(target=_watch, args=(lifeline, command), daemon=True).start()
    code = _reap(command)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    os._exit(main())
