"""The configuration of the path manager: what is told in one line, and the sample of the manual page."""

import re
from pathlib import Path

import pytest

from agents.config import ConfigError
from agents.core.path_manager.config import OnDeath
from agents.kernel.path_manager.configuration import PathManagerFile, read_config

LEAST = 'control = "/tmp/c"\n[[interface]]\nname = "eth0"\n'
MANUAL = Path(__file__).parents[5] / "docs" / "path-manager.md"


def read(tmp_path: Path, text: str) -> PathManagerFile:
    file = tmp_path / "pm.toml"
    file.write_text(text)
    return read_config(str(file))


def test_least(tmp_path: Path) -> None:
    file = read(tmp_path, LEAST)
    assert file.core.userspace
    assert file.core.policy == "all"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('control = "/tmp/c"\n', "interface: is missing"),
        (LEAST + 'cost = "dear"\n', "interface[0].cost: is 'dear'"),
        (LEAST + '[[interface]]\nname = "eth0"\n', "two tables for 'eth0'"),
        ('policy = "best"\n' + LEAST, "policy: is 'best'"),
        ("polcy = 1\n" + LEAST, "polcy: is not known here"),
        (LEAST + '[[home_address]]\naddress = "10.0.0"\n', "home_address[0].address: is '10.0.0': must be an IP address"),
        (LEAST + "[[home_address]]\ncost = 1\n", "home_address[0].address: is missing"),
        (LEAST + "[detection]\nprobe_failures = 0\n", "detection.probe_failures: is 0"),
        (LEAST + "[detection]\nsilence_min_s = 2\n", "detection.silence_min_s: silence_min_s must not be larger"),
        (LEAST + '[detection]\naction = "panic"\n', "detection.action: is 'panic'"),
        (
            'path_manager = "kernel"\n' + LEAST + '[[interface]]\nname = "tun0"\ndomain = "vpn"\n',
            "domain: several security domains need the userspace path manager",
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sample_of_the_manual_page(tmp_path: Path) -> None:
    [sample] = re.findall(r"```toml\n(.*?)```", MANUAL.read_text(encoding="utf-8"), re.DOTALL)
    file = read(tmp_path, sample)
    assert file.core.detection.action is OnDeath.CLOSE
    assert file.core.domains == {"", "company"}
    assert file.mobile_nodes
