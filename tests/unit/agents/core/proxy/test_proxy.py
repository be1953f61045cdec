"""The proxy as a whole: same inputs, same outputs; no module that could do input or output; what it tells of itself."""

import ast
import random
from pathlib import Path as FilePath

import agents.core.proxy
from agents.core.proxy.config import ProxyConfig
from agents.core.proxy.proxy import Proxy
from agents.wire import mptcp
from agents.wire.tcp import ACK, FIN
from tests.unit.agents.core.proxy.parts import NEAR
from tests.unit.agents.core.proxy.peer import Peer, pair

ALLOWED = {
    "__future__", "bisect", "collections", "dataclasses", "enum", "hashlib", "heapq", "hmac", "ipaddress", "operator",
    "struct", "typing",
}  # fmt: skip


def test_nothing_impure_is_imported() -> None:
    """Not by the core either directly or by what it imports of this project."""
    root = FilePath(agents.__path__[0]).parent
    waiting = list(FilePath(agents.core.proxy.__path__[0]).glob("*.py"))
    seen: set[FilePath] = set()
    assert len(waiting) > 15
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                if name.startswith("agents."):
                    found = root / (name.replace(".", "/") + ".py")
                    if found.exists():
                        assert name.startswith(("agents.core.", "agents.wire.")), f"{path} imports {name}"
                        waiting.append(found)
                elif name != "agents":
                    assert name.split(".")[0] in ALLOWED, f"{path} imports {name}"
            if isinstance(node, ast.Name):
                assert node.id not in {"open", "print", "input", "exec", "eval", "__import__"}, f"{path} uses {node.id}"


def conversation(seed: int) -> list[object]:
    """Everything that comes out of a conversation."""
    peer = Peer(ProxyConfig(policy="follow"), seed=seed)
    said: list[object] = []

    def note(out: object) -> None:
        said.append(repr(out.answer))  # type: ignore[attr-defined]
        said.extend(segment.data for segment in out.network + out.host)  # type: ignore[attr-defined]
        said.extend(repr(log) for log in out.logs)  # type: ignore[attr-defined]

    note(peer.addresses(0, 1, 2))
    peer.open(confirm=False)
    out = peer.far()
    note(out)
    for syn in out.network:
        path = peer.asked(type(out)(network=[syn]))
        note(peer.join_answered(path))
        note(peer.far(path))
    r = random.Random(7)
    for _ in range(40):
        peer.now += 0.01
        note(peer.host(r.randrange(1, 500)))
        note(peer.far(r.choice(peer.carrying()), r.randrange(1, 500)))
        note(peer.host(ack=peer.far_next))
        note(peer.far(san=peer.first.got.highest if peer.first.got else 1, dan=peer.near_next))
    note(peer.addresses(1))
    note(peer.host(flags=ACK | FIN))
    note(peer.far(peer.carrying()[0], dss=peer.dss(t=peer.far_next, fin=True, dan=peer.near_next)))
    note(peer.host(ack=peer.far_next + 1))
    note(peer.wait(100))
    peer.check_empty()
    return said


def test_the_same_inputs_have_the_same_outputs() -> None:
    first = conversation(1)
    assert len(first) > 300
    assert conversation(1) == first
    assert conversation(2) != first, "keys and nonces are drawn from what is given"


def test_keys_are_drawn_again_when_their_token_is_taken() -> None:
    drawn = iter([b"key-one!", b"key-one!", b"key-one!", b"key-two!"])
    proxy = Proxy(ProxyConfig(), lambda count: next(drawn) if count == 8 else bytes(count))
    for port in (1, 2):
        Peer(proxy=proxy, port=port).host_syn()
    assert set(proxy._by_token) == {mptcp.token(b"key-one!"), mptcp.token(b"key-two!")}


def test_what_it_tells_of_itself() -> None:
    peer, _a, _b = pair()
    peer.goes_on()
    assert peer.proxy.status()["connections"] == 1
    assert peer.proxy.status()["subflows"] == 2
    (told,) = peer.proxy.connections()
    assert (told["state"], told["local"], told["remote"]) == ("established", "10.1.0.1 40000", "10.64.0.1 80")
    assert [(each["subflow"], each["active"]) for each in told["subflows"]] == [(0, True), (1, False)]
    assert told["sent"] == peer.near_next - 1
    assert told["received"] == peer.far_next - 1
    assert peer.proxy.application_addresses() == {NEAR[0]}
    assert peer.proxy.knows(peer.first.packet(1, 1, ACK, 1))
    assert peer.proxy.knows(peer.host_packet(1, 1, ACK, 1, []))
    assert not peer.proxy.knows(Peer(port=9).first.packet(1, 1, ACK, 1))
    assert not peer.proxy.knows(b"")
