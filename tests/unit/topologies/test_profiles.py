"""Link profiles: every bad value gives one line that names field, value and remedy."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies.profiles import (
    MIN_QUEUE_PACKETS,
    PRESETS,
    GilbertElliott,
    LinkProfile,
    ProfileError,
    load_profiles,
    profile,
)

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("field", ["rate_mbit", "delay_ms", "jitter_ms", "loss", "reorder", "duplicate", "queue_bdp"])
@pytest.mark.parametrize("value", [-1, NAN, INF, -INF, 1e12, "20", True, [1]])
def test_every_number_is_checked(field: str, value: Any) -> None:
    with pytest.raises(ProfileError) as caught:
        LinkProfile(**{field: value})
    message = str(caught.value)
    assert message.startswith(f"{field} = {value!r}: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rate_mbit": 0}, "rate_mbit = 0: must be from 0.001 to 100000; leave it out for an unlimited link"),
        ({"loss": 5}, "loss = 5: must be from 0 to 1; it is a probability: 1 % is 0.01"),
        ({"delay_ms": 5, "jitter_ms": 6}, "jitter_ms = 6: must not exceed delay_ms = 5; raise the delay"),
        ({"queue_packets": 0}, "queue_packets = 0: must be a whole number from 1 to 100000"),
        ({"queue_packets": 2.5}, "queue_packets = 2.5: must be a whole number"),
        ({"queue_packets": True}, "queue_packets = True: must be a whole number"),
        ({"queue_packets": 5, "queue_bdp": 1}, "queue_bdp = 1: cannot go with queue_packets; give one of them"),
        ({"reorder": 0.1}, "reorder = 0.1: needs delay_ms above 0"),
        ({"loss": 0.1, "burst": GilbertElliott(p=0.1, r=0.5)}, "loss = 0.1: cannot go with burst"),
        ({"burst": 0.5}, "burst = 0.5: must be GilbertElliott"),
        ({"trace": "file"}, "trace = 'file': must be a Trace"),
    ],
)
def test_messages(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError) as caught:
        LinkProfile(**fields)
    assert str(caught.value).startswith(message)


def test_burst_is_checked() -> None:
    with pytest.raises(ProfileError, match=r"burst\.r = 0: a burst would never end"):
        GilbertElliott(p=0.1, r=0)
    with pytest.raises(ProfileError, match=r"burst\.loss_bad = 2: must be from 0 to 1"):
        GilbertElliott(p=0.1, r=0.2, loss_bad=2)


def test_stationary_loss_of_a_burst_channel() -> None:
    burst = GilbertElliott(p=0.01, r=0.09, loss_good=0.0, loss_bad=0.5)
    assert burst.bad_share == pytest.approx(0.1)
    assert burst.stationary_loss == pytest.approx(0.05)
    # Without memory (p + r = 1) the losses are independent.
    memoryless = GilbertElliott(p=0.2, r=0.8)
    assert memoryless.variance_factor() == pytest.approx(0.2 * 0.8)


@pytest.mark.parametrize(
    ("values", "packets"),
    [
        # 20 Mbit/s x 30 ms round trip = 75,000 bytes = 49.5 full frames
        ({"rate_mbit": 20, "delay_ms": 15}, 50),
        ({"rate_mbit": 20, "delay_ms": 15, "queue_bdp": 2.0}, 100),
        ({"rate_mbit": 10, "delay_ms": 35}, 58),
        ({"rate_mbit": 1, "delay_ms": 1}, MIN_QUEUE_PACKETS),
        ({"rate_mbit": 1, "delay_ms": 1, "queue_packets": 3}, 3),
        ({"rate_mbit": 100_000, "delay_ms": 60_000}, 100_000),
        # exactly a whole number of frames stays that number
        ({"rate_mbit": 1514 * 8 * 100 / 1e4, "delay_ms": 5}, 100),
    ],
)
def test_queue_from_bandwidth_delay_product(values: dict[str, Any], packets: int) -> None:
    assert LinkProfile(**values).queue_limit == packets


def test_an_unlimited_link_has_no_queue() -> None:
    assert LinkProfile(delay_ms=10).queue_limit is None


def test_describe() -> None:
    assert PRESETS["wlan"].describe() == "20 Mbit/s 15 ms"
    assert LinkProfile().describe() == "unlimited 0 ms"
    assert LinkProfile(rate_mbit=0.5, delay_ms=15, jitter_ms=2, loss=0.01).describe() == "0.5 Mbit/s 15 ms ±2 ms 1 % loss"


def test_shapes() -> None:
    assert not LinkProfile().shapes
    assert not LinkProfile(queue_packets=5).shapes
    assert PRESETS["lan"].shapes


def test_presets_by_name() -> None:
    assert set(PRESETS) == {"wlan", "lte", "5g", "dsl", "satellite", "lan"}
    assert profile("lte") is PRESETS["lte"]
    assert profile(None) == LinkProfile()
    assert profile({"preset": "wlan", "delay_ms": 5}) == LinkProfile(rate_mbit=20.0, delay_ms=5)
    with pytest.raises(ProfileError, match="preset 'wifi': no such preset; there are wlan, lte, 5g"):
        profile("wifi")


def test_a_field_replaces_its_rival_in_the_preset() -> None:
    assert profile({"preset": "dsl", "queue_packets": 7}).queue_limit == 7
    assert profile({"preset": "satellite", "burst": {"p": 0.1, "r": 0.5}}).loss == 0


def test_unknown_field_lists_the_valid_ones() -> None:
    with pytest.raises(ProfileError, match=r"bandwidth: no such field; a profile has rate_mbit, delay_ms, .*trace and preset"):
        profile({"bandwidth": 5})


probabilities = st.floats(0, 1)
bursts = st.builds(GilbertElliott, p=probabilities, r=st.floats(0.001, 1), loss_good=probabilities, loss_bad=probabilities)
profiles = st.builds(
    LinkProfile,
    rate_mbit=st.none() | st.floats(0.001, 1e5),
    delay_ms=st.floats(5, 60_000),
    jitter_ms=st.floats(0, 5),
    burst=st.none() | bursts,
    reorder=probabilities,
    duplicate=probabilities,
    queue_packets=st.none() | st.integers(1, 100_000),
)


@given(profiles)
def test_json_round_trip(value: LinkProfile) -> None:
    assert LinkProfile.from_dict(json.loads(json.dumps(value.to_dict()))) == value


def write(folder: Path, text: str) -> Path:
    path = folder / "profiles.toml"
    path.write_text(text)
    return path


def test_load(tmp_path: Path) -> None:
    (tmp_path / "drive.trace").write_text("1\n2\n")
    path = write(
        tmp_path,
        """
        [slow]
        preset = "wlan"
        rate_mbit = 1

        [bursty]
        rate_mbit = 5
        burst = { p = 0.01, r = 0.5 }

        [drive]
        trace = { file = "drive.trace", loops = 2 }
        """,
    )
    loaded = load_profiles(path)
    assert loaded["slow"] == LinkProfile(rate_mbit=1, delay_ms=15.0)
    assert loaded["bursty"].burst == GilbertElliott(p=0.01, r=0.5)
    assert loaded["drive"].trace is not None
    assert loaded["drive"].trace.loops == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\nrate_mbit = \n", ":2: not valid TOML: invalid value"),
        ("[a]\nrate_mbit = 1\n[b]\n\nrate_mbit = -1\n", ":5: [b] rate_mbit = -1: must be from 0.001"),
        ("[a]\nratembit = 1\n", ":2: [a] ratembit: no such field; a profile has rate_mbit"),
        ("[a]\npreset = 'x'\n", ":2: [a] preset 'x': no such preset"),
        ("[a]\nburst = { p = 3, r = 1 }\n", ":2: [a] burst.p = 3: must be from 0 to 1"),
        ("[a]\n[a.burst]\np = 1\n", ":2: [a] burst.r is missing: a burst needs p and r"),
        ("a = 5\n", ": a is not a table: put it below a heading"),
        ("", ": no profiles: write a table such as [slow]"),
        ("[a]\ntrace = 'gone'\n", ":2: [a] trace: "),
        ("[a]\ntrace = { loops = 1 }\n", ":2: [a] trace: file is missing"),
        ("[a]\ntrace = 7\n", ":2: [a] trace: 7 is no trace"),
    ],
)
def test_load_errors_name_file_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ProfileError) as caught:
        load_profiles(path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


def test_load_of_a_missing_or_binary_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot read profiles: No such file"):
        load_profiles(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileError, match="not UTF-8 text at byte 0"):
        load_profiles(tmp_path / "binary.toml")
