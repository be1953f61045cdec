"""The capsule: own network, mount, PID, IPC and UTS namespaces, and for an ordinary user a user namespace.

Nothing done inside reaches the host, and nothing survives the process that launched it, however that one ends:
* the lifeline pipe closes with the launcher (SIGKILL included) and PID 1 of the capsule exits;
* `setpriv --pdeathsig` ends `unshare` when the launching thread ends (launch from the main thread);
* `unshare --kill-child` ends PID 1 when `unshare` is killed.
"""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import RoamlabError

_INIT = Path(__file__).with_name("capsule_init.py")
ROOT = Path(__file__).resolve().parent.parent
_PROBE_TIMEOUT_S = 30
USER_NAMESPACE_VARIABLE = "ROAMLAB_USER_NAMESPACE"
"""Set to anything, root's capsules have a user namespace too: what an ordinary user would see."""
SYSTEM_PATH = "/usr/sbin:/sbin"  # an ordinary user's PATH often lacks the folders where ip, tc and dnsmasq live


def command_line(argv: list[str], lifeline_fd: int, *, user_namespace: bool) -> list[str]:
    """The whole command that runs `argv` inside a new capsule."""
    user = ["--user", "--map-root-user"] if user_namespace else []
    return [
        "setpriv", "--pdeathsig", "KILL", "--",
        "unshare", *user, "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc", "--",
        sys.executable, "-I", "-S", str(_INIT), str(lifeline_fd), *argv,
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """The environment of programs inside: the system folders in PATH, and our packages importable from anywhere."""
    env = dict(os.environ)
    env["PATH"] = f"{env.get('PATH', '/usr/bin:/bin')}:{SYSTEM_PATH}"
    env["PYTHONPATH"] = str(ROOT)
    env["PYTHONDONTWRITEBYTECODE"] = env.get("PYTHONDONTWRITEBYTECODE", "")
    env["LC_ALL"] = "C.UTF-8"
    return env


@dataclass
class Capsule:
    """A running capsule: its outermost process and the write end of its lifeline."""

    process: "subprocess.Popen[bytes]"
    lifeline_fd: int

    def ask_to_end(self) -> None:
        """SIGTERM for the command inside; it may still write down why it ended."""
        if self.lifeline_fd < 0:
            return
        try:
            os.write(self.lifeline_fd, b"q")
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise

    def close(self) -> None:
        """Cut the lifeline: everything inside ends now."""
        if self.lifeline_fd >= 0:
            os.close(self.lifeline_fd)
            self.lifeline_fd = -1

    def wait(self, timeout_s: float | None = None) -> int:
        """Exit code of the command inside."""
        return self.process.wait(timeout_s)


def launch(
    argv: list[str],
    *,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
    interactive: bool = False,
    user_namespace: bool | None = None,
) -> Capsule:
    """Start `argv` inside a new capsule. Call it from a thread that lives as long as the capsule may.

    `interactive` keeps the terminal's process group (job control, Ctrl-C reach the command inside); otherwise the
    capsule has a session of its own and ends by `ask_to_end` or `close`. Raises RoamlabError when a program is missing.
    """
    for program in ("setpriv", "unshare"):
        if shutil.which(program, path=environment()["PATH"]) is None:
            raise RoamlabError(f"{program} is not installed: run `make setup` (Debian package util-linux)")
    if user_namespace is None:
        user_namespace = os.geteuid() != 0 or bool(os.environ.get(USER_NAMESPACE_VARIABLE))
    read_fd, write_fd = os.pipe()
    try:
        process = subprocess.Popen(
            command_line(argv, read_fd, user_namespace=user_namespace),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=(read_fd,),
            env=environment(),
            start_new_session=not interactive,
        )
    except BaseException:
        os.close(write_fd)
        raise
    finally:
        os.close(read_fd)
    return Capsule(process, write_fd)


def why_not() -> str | None:
    """None when capsules work here, else one line with the reason and the remedy."""
    try:
        capsule = launch(["true"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    except RoamlabError as error:
        return str(error)
    try:
        _, stderr = capsule.process.communicate(timeout=_PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"no namespaces: a capsule did not start within {_PROBE_TIMEOUT_S} s"
    finally:
        capsule.close()
    if capsule.process.returncode == 0:
        return None
    text = (stderr or b"").decode(errors="replace").strip().splitlines()
    reason = text[-1] if text else f"exit code {capsule.process.returncode}"
    return f"no namespaces: {reason}. {_namespace_remedy()}"


def _namespace_remedy() -> str:
    """Which setting forbids user namespaces here."""
    settings = {
        "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl kernel.unprivileged_userns_clone=1"),
        "/proc/sys/user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=10000"),
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    }
    for path, (forbidding, remedy) in settings.items():
        try:
            if Path(path).read_text().strip() == forbidding:
                return f"An administrator can allow them: {remedy}"
        except OSError:
            continue
    return "Run as root, or allow unprivileged user namespaces"
