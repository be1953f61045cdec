"""Linked increases in the kernel: there while its program runs, gone when it ends in any way; or a reason why not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from experiments import lia
from topologies.waiting import wait_until

AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
TRANSFER = """
import hashlib, socket, sys, threading
name, wanted = sys.argv[1].encode(), 20_000_000
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
listener.bind(("127.0.0.1", 0)); listener.listen()
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
client.connect(listener.getsockname())
server, _ = listener.accept()
assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\\0") == name, "another congestion control"
thread = threading.Thread(target=lambda: (server.sendall(bytes(wanted)), server.close()))
thread.start()
got = 0
while data := client.recv(1 << 20):
    got += len(data)
thread.join()
assert got == wanted, got
"""


def running(name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.lia", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def there(name: str) -> bool:
    return name in AVAILABLE.read_text().split()


def why_not() -> str | None:
    done = subprocess.run([sys.executable, "-m", "experiments.lia", "--probe"], capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr.strip()


def test_it_is_there_while_its_program_runs_and_carries_a_transfer_or_there_is_a_reason() -> None:
    reason = why_not()
    if reason is not None:
        assert len(reason.splitlines()) == 1
        assert any(word in reason for word in ("clang", "libbpf", "BTF", "kernel refuses")), reason
        return
    first, second = lia.own_name(), lia.own_name()
    programs = [running(first), running(second)]
    try:
        for program in programs:
            assert program.stdout is not None
            assert "ready" in program.stdout.readline()
        assert there(first)
        assert there(second)
        script = f'ip link set lo up; sysctl -q -w net.ipv4.tcp_congestion_control={first}; "$0" -c "$1" {first}'
        subprocess.run(["unshare", "--net", "sh", "-ec", script, sys.executable, TRANSFER], check=True, timeout=60)
        os.kill(programs[0].pid, signal.SIGKILL)
        wait_until(lambda: not there(first), 10.0, "the killed one's end in the kernel")
        assert there(second)
        assert programs[1].stdin is not None
        programs[1].stdin.close()
        wait_until(lambda: not there(second), 10.0, "the other one's end in the kernel")
    finally:
        for program in programs:
            program.kill()
            program.wait()
