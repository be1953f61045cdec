"""What the finders say of a hand-made scene."""

from __future__ import annotations

from connection_scene import Line, Scene

from analysis.connections import reconstruct
from analysis.connections.findings import find


def found(scene: Scene):
    return find(reconstruct(scene.table()))


def texts(scene: Scene, kind: str) -> list[str]:
    findings = found(scene)
    return findings.loc[findings["kind"] == kind, "text"].tolist()


def only(scene: Scene, kind: str) -> str:
    """The text of the one finding there must be."""
    findings = found(scene)
    assert findings["kind"].tolist() == [kind], findings.to_string()
    return findings["text"].iloc[0]


def joined(scene: Scene, ms: float = 100, backup: int = 0) -> Line:
    line = scene.line("10.0.2.1:1001", isn=(77, 88))
    line.join(ms, backup=backup)
    return line
