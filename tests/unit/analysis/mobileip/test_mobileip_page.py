"""Mobile IP in the page of an analysis."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transfers as tr
from mobileip_scene import COA1, COA2, HA, MN, in_tunnel, multipath, rrp, rrq, table_of, udp
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from analysis.mobileip import Mobility, read_mobility
from analysis.page import write_page


def exchange(at_s: float, care_of: str, number: int, **more) -> list:
    ident = number << 32 | 7
    return [
        (at_s, udp(care_of, HA, rrq(care_of, ident=ident, **more))),
        (at_s + 0.03, udp(HA, care_of, rrp(ident=ident, **more))),
    ]


@pytest.fixture(scope="module")
def mobility(tmp_path_factory) -> Mobility:
    """Two bindings with identifiers, refreshed for long, data in their tunnels, and a third request that nobody answers."""
    packets = [*exchange(1.0, COA1, 1, more=multipath(1))]
    packets += [row for n in range(60) for row in exchange(2.0 + 20 * n, COA1, 2 + n, more=multipath(1))]
    packets += exchange(100.5, COA2, 900, more=multipath(2))
    packets += [(1300.0, udp("10.3.0.77", HA, rrq("10.3.0.77", ident=999 << 32)))]
    inner = IP(src="10.5.0.2", dst=MN) / UDP(sport=9, dport=9) / Raw(b"x" * 400)
    packets += [(1.1 + n, in_tunnel(HA, COA1, inner)) for n in range(50)]
    packets += [(101.1 + n, in_tunnel(HA, COA2, inner)) for n in range(50)]
    return read_mobility(table_of(tmp_path_factory.mktemp("mobile"), sorted(packets, key=lambda p: p[0])))


def test_page_shows_registrations_bindings_and_tunnels(mobility, tmp_path: Path) -> None:
    rec = tr.handover()
    analysis = tr.analysis(rec, mobility=mobility)
    analysis.summary["start_ns"] = int(mobility.messages["time_ns"].min())
    html = write_page(analysis, tmp_path / "mobile.html").read_text()
    section = html[html.index('id="mobility"') : html.index('id="reading"')]
    assert re.findall(r"<h3>(.*?)</h3>", section)[0] == "Registrations"
    assert section.count('alt="Bindings over time"') == 1
    assert section.count('alt="Who sent which mobility message when"') == 1
    assert "60 refreshes accepted at the first try not listed" in section
    assert section.count("<td>registration</td>") == 3
    assert section.count("unanswered") == 1
    assert "RRQ <b>63</b>" in section
    assert "mobility registrations" in html
    assert COA2 in section
    assert MN in section
    tunnels = section[section.index("<h3>Tunnels</h3>") :]
    assert tunnels.count("IP-in-IP") == 2
    assert "30 ms" in section


def test_nothing_is_said_without_mobile_ip(tmp_path: Path) -> None:
    assert 'id="mobility"' not in write_page(tr.analysis(tr.handover()), tmp_path / "p.html").read_text()
