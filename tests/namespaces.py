"""A program of the benchmarks and soak runs again, in namespaces of its own."""

import os
import subprocess
import sys

_PREPARE = 'mount -t tmpfs tmpfs /run && mkdir /run/netns && ip link set lo up && exec "$@"'


def again_inside(module: str, mark: str) -> int:
    """`python -m MODULE` with this program's arguments; the environment variable `mark` is set there. Its exit code.

    No root is needed where user namespaces are allowed.
    """
    user = ["--user", "--map-root-user"] if os.geteuid() else []
    words = ["unshare", *user, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", _PREPARE, "sh", sys.executable, "-m", module, *sys.argv[1:]]  # fmt: skip
    path = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
    return subprocess.run(words, env={**os.environ, mark: "1", "PATH": path}, check=False).returncode
