"""What a link does to packets: rate, delay, jitter, loss, queue; presets; TOML files of profiles.

Rates count the bytes of Ethernet frames without the frame check sequence (14 bytes of header, then the IP packet):
what `len(frame)` is on Linux and what `tc` counts.
"""

import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from topologies.traces import Trace, TraceError, trace_from

FRAME_BYTES = 1514
"""A full frame: 1500 bytes of IP packet and the Ethernet header. The unit in which queues are sized."""

PROFILES_VARIABLE = "ROAMLAB_PROFILES"
"""Environment variable: a TOML file with further profiles."""

MIN_QUEUE_PACKETS = 20
"""Smallest queue that is derived from a bandwidth-delay product: two initial windows of TCP (RFC 6928)."""

MAX_QUEUE_PACKETS = 100_000
MAX_RATE_MBIT = 100_000.0
MIN_RATE_MBIT = 0.001
MAX_DELAY_MS = 60_000.0


class ProfileError(ValueError):
    """A link profile that makes no sense; one line that names field, value and remedy."""


def _number(name: str, value: object, low: float, high: float, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProfileError(f"{name} = {value!r}: must be a number; {remedy}")
    if not math.isfinite(value) or not low <= value <= high:
        raise ProfileError(f"{name} = {value!r}: must be from {low:g} to {high:g}; {remedy}")


def _probability(name: str, value: object) -> None:
    _number(name, value, 0.0, 1.0, "it is a probability: 1 % is 0.01")


@dataclass(frozen=True, kw_only=True)
class GilbertElliott:
    """Loss in bursts: a chain of two states, good and bad, that moves once per frame.

    Source: E. N. Gilbert, "Capacity of a Burst-Noise Channel", 1960; E. O. Elliott, 1963. The parameters
    are those of `netem loss gemodel p r 1-h 1-k` with 1-h = loss_bad, 1-k = loss_good.
    """

    p: float
    """Probability of going from good to bad after a frame."""

    r: float
    """Probability of going from bad to good after a frame. The mean stay in bad is 1/r frames."""

    loss_good: float = 0.0
    """Probability that a frame is lost in the good state."""

    loss_bad: float = 1.0
    """Probability that a frame is lost in the bad state."""

    def __post_init__(self) -> None:
        for name in ("p", "r", "loss_good", "loss_bad"):
            _probability(f"burst.{name}", getattr(self, name))
        if self.r == 0:
            raise ProfileError("burst.r = 0: a burst would never end; give the probability that it ends at a frame")

    @property
    def bad_share(self) -> float:
        """Long-term share of frames that meet the bad state."""
        return self.p / (self.p + self.r)

    @property
    def stationary_loss(self) -> float:
        """Long-term share of frames that are lost."""
        return self.bad_share * self.loss_bad + (1 - self.bad_share) * self.loss_good

    def variance_factor(self) -> float:
        """Variance of the number of losses in n frames, divided by n (n large).

        Losses of a burst are correlated: Var/n = q(1-q) + 2 a (loss_bad - loss_good)^2 b(1-b) / (1-a)
        with q the stationary loss, b the share of bad and a = 1-p-r the correlation of neighbouring states.
        """
        q, b, a = self.stationary_loss, self.bad_share, 1 - self.p - self.r
        return q * (1 - q) + 2 * a * (self.loss_bad - self.loss_good) ** 2 * b * (1 - b) / (1 - a)


@dataclass(frozen=True, kw_only=True)
class LinkProfile:
    """One direction of a link. Immutable; validated on construction (ProfileError)."""

    rate_mbit: float | None = None
    """Rate in Mbit/s, counting Ethernet frames without FCS. None: unlimited."""

    delay_ms: float = 0.0
    """One-way delay in ms, added after the rate limiter."""

    jitter_ms: float = 0.0
    """The delay of each frame is uniform in delay_ms +- jitter_ms. Frames are never reordered by it: one that
    would overtake waits, so with many frames per ms the mean delay grows towards delay_ms + jitter_ms."""

    loss: float = 0.0
    """Probability that a frame is lost, each one independently. Lost frames have used the rate."""

    burst: GilbertElliott | None = None
    """Loss in bursts instead of `loss`."""

    reorder: float = 0.0
    """Probability that a frame skips the delay (not the rate limiter) and so overtakes the ones in flight."""

    duplicate: float = 0.0
    """Probability that a frame arrives twice."""

    queue_packets: int | None = None
    """Packets that may wait for the rate limiter; the one in transmission is not counted."""

    queue_bdp: float | None = None
    """The queue as a multiple of rate x round trip of this link alone (2 x delay_ms), in full frames, at least
    MIN_QUEUE_PACKETS. 1.0 when neither this nor queue_packets is given."""

    trace: Trace | None = None
    """Delivery opportunities over time instead of a constant rate (see topologies.traces)."""

    def __post_init__(self) -> None:
        if self.rate_mbit is not None:
            _number("rate_mbit", self.rate_mbit, MIN_RATE_MBIT, MAX_RATE_MBIT, "leave it out for an unlimited link")
        _number("delay_ms", self.delay_ms, 0.0, MAX_DELAY_MS, "it is the one-way delay in ms")
        _number("jitter_ms", self.jitter_ms, 0.0, MAX_DELAY_MS, "it is in ms")
        if self.jitter_ms > self.delay_ms:
            raise ProfileError(f"jitter_ms = {self.jitter_ms!r}: must not exceed delay_ms = {self.delay_ms!r}; raise the delay")
        for name in ("loss", "reorder", "duplicate"):
            _probability(name, getattr(self, name))
        if self.burst is not None:
            if not isinstance(self.burst, GilbertElliott):
                raise ProfileError(f"burst = {self.burst!r}: must be GilbertElliott(p=..., r=...)")
            if self.loss:
                raise ProfileError(f"loss = {self.loss!r}: cannot go with burst; put it into burst as loss_good")
        if self.reorder and not self.delay_ms:
            raise ProfileError(f"reorder = {self.reorder!r}: needs delay_ms above 0; there is no delay to skip")
        if self.queue_packets is not None:
            value = self.queue_packets
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_QUEUE_PACKETS:
                raise ProfileError(
                    f"queue_packets = {value!r}: must be a whole number from 1 to {MAX_QUEUE_PACKETS}; "
                    "leave it out for one bandwidth-delay product"
                )
            if self.queue_bdp is not None:
                raise ProfileError(f"queue_bdp = {self.queue_bdp!r}: cannot go with queue_packets; give one of them")
        if self.queue_bdp is not None:
            _number("queue_bdp", self.queue_bdp, 0.01, 1000.0, "it is a multiple of the bandwidth-delay product")
        if self.trace is not None:
            if not isinstance(self.trace, Trace):
                raise ProfileError(f"trace = {self.trace!r}: must be a Trace; use load_trace(path)")
            if self.rate_mbit is not None:
                raise ProfileError(f"rate_mbit = {self.rate_mbit!r}: cannot go with trace; the trace is the rate")

    @property
    def mean_rate_mbit(self) -> float | None:
        """The rate, or the mean rate of the trace, or None when unlimited."""
        return self.trace.mean_rate_mbit if self.trace else self.rate_mbit

    @property
    def queue_limit(self) -> int | None:
        """Packets that may wait for the rate limiter; None when there is no limiter and nothing ever waits."""
        rate_mbit = self.mean_rate_mbit
        if rate_mbit is None:
            return None
        if self.queue_packets is not None:
            return self.queue_packets
        factor = 1.0 if self.queue_bdp is None else self.queue_bdp
        bdp_bytes = rate_mbit * 1e6 / 8 * (2 * self.delay_ms / 1000)
        # The tiny amount keeps 33.000000000000004 from becoming 34.
        packets = math.ceil(factor * bdp_bytes / FRAME_BYTES - 1e-9)
        return min(MAX_QUEUE_PACKETS, max(MIN_QUEUE_PACKETS, packets))

    @property
    def mean_loss(self) -> float:
        """Long-term share of frames that are lost."""
        return self.burst.stationary_loss if self.burst else self.loss

    @property
    def shapes(self) -> bool:
        """False when the profile lets every frame pass at once."""
        return self != LinkProfile(queue_packets=self.queue_packets, queue_bdp=self.queue_bdp)

    def describe(self) -> str:
        """A label for people, such as "20 Mbit/s 15 ms"."""
        if self.trace:
            words = [f"{Path(self.trace.file).stem} (mean {self.trace.mean_rate_mbit:.3g} Mbit/s)"]
        else:
            words = ["unlimited" if self.rate_mbit is None else f"{self.rate_mbit:g} Mbit/s"]
        words.append(f"{self.delay_ms:g} ms" + (f" ±{self.jitter_ms:g} ms" if self.jitter_ms else ""))
        if self.mean_loss:
            words.append(f"{100 * self.mean_loss:.3g} % loss" + (" in bursts" if self.burst else ""))
        if self.reorder:
            words.append(f"{100 * self.reorder:.3g} % reordered")
        if self.duplicate:
            words.append(f"{100 * self.duplicate:.3g} % duplicated")
        return " ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; `LinkProfile.from_dict` reads it back."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        if self.burst:
            values["burst"] = {item.name: getattr(self.burst, item.name) for item in fields(self.burst)}
        if self.trace:
            values["trace"] = self.trace.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LinkProfile":
        """A profile from its fields; `preset` names a profile whose fields are the defaults.

        Raises ProfileError for unknown fields (listing the valid ones) and bad values.
        """
        if not isinstance(values, Mapping):
            raise ProfileError(f"{values!r}: a profile is a table of fields: {', '.join(_FIELDS)}")
        merged: dict[str, Any] = {}
        own = dict(values)
        if "preset" in own:
            merged = preset(own.pop("preset")).to_dict()
            # A field of one kind replaces what the preset says with the other field of that kind.
            for name, rivals in _RIVALS.items():
                if own.get(name) is not None:
                    merged.update(dict.fromkeys(rivals))
            if own.get("burst") is not None and "loss" not in own:
                merged["loss"] = 0.0
            if own.get("loss") and "burst" not in own:
                merged["burst"] = None
        for name in own:
            if name not in _FIELDS:
                raise ProfileError(f"{name}: no such field; a profile has {', '.join(_FIELDS)} and preset")
        merged.update(own)
        if merged.get("burst") is not None and not isinstance(merged["burst"], GilbertElliott):
            merged["burst"] = _burst_from(merged["burst"])
        if merged.get("trace") is not None:
            try:
                merged["trace"] = trace_from(merged["trace"])
            except TraceError as error:
                raise ProfileError(f"trace: {error}") from error
        return cls(**merged)


_FIELDS = tuple(item.name for item in fields(LinkProfile))
_RIVALS = {
    "rate_mbit": ("trace",),
    "trace": ("rate_mbit",),
    "queue_packets": ("queue_bdp",),
    "queue_bdp": ("queue_packets",),
}


def _burst_from(value: object) -> GilbertElliott:
    names = tuple(item.name for item in fields(GilbertElliott))
    if not isinstance(value, Mapping):
        raise ProfileError(f"burst = {value!r}: must be a table with {', '.join(names)}")
    for name in value:
        if name not in names:
            raise ProfileError(f"burst.{name}: no such field; burst has {', '.join(names)}")
    for name in ("p", "r"):
        if name not in value:
            raise ProfileError(f"burst.{name} is missing: a burst needs p and r")
    return GilbertElliott(**value)


ProfileLike: TypeAlias = LinkProfile | str | Mapping[str, Any] | None

PRESETS: dict[str, LinkProfile] = {
    "wlan": LinkProfile(rate_mbit=20.0, delay_ms=15.0),
    "lte": LinkProfile(rate_mbit=10.0, delay_ms=35.0),
    "5g": LinkProfile(rate_mbit=100.0, delay_ms=10.0),
    "dsl": LinkProfile(rate_mbit=16.0, delay_ms=12.0, queue_bdp=2.0),
    "satellite": LinkProfile(rate_mbit=20.0, delay_ms=270.0, loss=0.001),
    "lan": LinkProfile(rate_mbit=100.0, delay_ms=0.5, queue_packets=100),
}
"""Named profiles. wlan and lte are the pair that the multipath literature compares most often."""


def preset(name: object) -> LinkProfile:
    """The preset of that name. Raises ProfileError listing the valid names."""
    if not isinstance(name, str) or name not in PRESETS:
        raise ProfileError(f"preset {name!r}: no such preset; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def named_profiles() -> dict[str, LinkProfile]:
    """The presets and, before them, the profiles of the file that ROAMLAB_PROFILES names. Raises ProfileError."""
    path = os.environ.get(PROFILES_VARIABLE)
    return {**PRESETS, **(load_profiles(path) if path else {})}


def profile(value: ProfileLike) -> LinkProfile:
    """A profile from itself, a name (see `named_profiles`), a table of fields, or None (nothing is shaped)."""
    if value is None:
        return LinkProfile()
    if isinstance(value, LinkProfile):
        return value
    if isinstance(value, str):
        named = named_profiles()
        return named[value] if value in named else preset(value)
    return LinkProfile.from_dict(value)


def load_profiles(path: str | Path) -> dict[str, LinkProfile]:
    """Read a TOML file in which each table is a profile: its fields, and `preset` to start from one.

    A trace file is looked up relative to the TOML file. Raises ProfileError naming file, line where it can be
    told, profile and field.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except OSError as error:
        raise ProfileError(f"{path}: cannot read profiles: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"{path}: not UTF-8 text at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(_malformed(path, text, str(error))) from error
    if not tables:
        raise ProfileError(f"{path}: no profiles: write a table such as [slow] with rate_mbit = 1")
    profiles: dict[str, LinkProfile] = {}
    for name, table in tables.items():
        where = _position(path, text, name, None)
        if not isinstance(table, Mapping):
            raise ProfileError(f"{where}: {name} is not a table: put it below a heading such as [slow]")
        try:
            profiles[name] = LinkProfile.from_dict(_with_trace_beside(Path(path), table))
        except ProfileError as error:
            words = re.match(r"[a-z_]+(?:\.([a-z_]+))?", str(error))
            where = _position(path, text, name, words.group(0).split(".")[0] if words else None)
            raise ProfileError(f"{where}: [{name}] {error}") from error
    return profiles


def _with_trace_beside(path: Path, table: Mapping[str, Any]) -> Mapping[str, Any]:
    trace = table.get("trace")
    if isinstance(trace, str):
        return {**table, "trace": str(path.parent / trace)}
    if isinstance(trace, Mapping) and isinstance(trace.get("file"), str):
        return {**table, "trace": {**trace, "file": str(path.parent / trace["file"])}}
    return table


def _malformed(path: str | Path, text: str, message: str) -> str:
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    line = int(found.group(1)) if found else text.count("\n") + 1
    reason = message[: found.start()] if found else message.removesuffix(" (at end of document)")
    return f"{path}:{line}: not valid TOML: {reason[:1].lower()}{reason[1:]}"


def _position(path: str | Path, text: str, table: str, name: str | None) -> str:
    """`file:line` of a field in a table as far as a search of the text can tell, else `file`."""
    matches: Callable[[str], object] = re.compile(rf"\s*\[\s*[\"']?{re.escape(table)}[\"']?\s*[\].]").match
    inside = False
    heading = None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("["):
            inside = bool(matches(line))
            heading = number if inside and heading is None else heading
            if inside and name and re.search(rf"\.{name}\s*\]", line):
                return f"{path}:{number}"
        elif inside and name and re.match(rf"\s*{name}\s*[=.]", line):
            return f"{path}:{number}"
    return f"{path}:{heading}" if heading else str(path)
