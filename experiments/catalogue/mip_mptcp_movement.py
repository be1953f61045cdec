"""Movement with Mobile IP + MPTCP: both hosts at once, with and without overlap, roaming with one interface."""

from experiments.catalogue.mip4_roaming import TOUR
from experiments.model import Bound, Claim, Event, Experiment, Scenario, Source

BOTH, DIRECT, TO_THE_LETTER, ONLY_MPTCP, ONLY_MOBILE_IP = (
    "mip-mptcp", "mip-mptcp-direct", "mip-mptcp-direct-only", "mptcp", "mip4",
)  # fmt: skip
OURS = (BOTH, DIRECT)
WLAN, LTE = "mn-wlan", "mn-lte"
PAPER = "mobile-host-multihoming"
SMOOTH_MS = 100.0
"""Besides one round trip: what "smooth" means here."""

# -- both hosts are mobile, each with one interface ---------------------------------------------------------------------
MOVE_S, MOVE_DURATION_S = 5.0, 12.0
_NETWORKS = ({"name": "wlan"}, {"name": "next", "profile": "wlan", "attached": False})
_MOBILE = {"access": _NETWORKS, "cn_access": _NETWORKS, "homes": 2}
_MN_MOVES = Event(at_s=MOVE_S, kind="reattach", target=WLAN, parameters={"to": "ar2/ap1"})
_CN_MOVES = Event(at_s=MOVE_S, kind="reattach", target="cn-wlan", parameters={"to": "ar4/ap1"})


def _mobile(name: str, label: str, *moves: Event) -> Scenario:
    return Scenario(name=name, label=label, parameters=_MOBILE, duration_s=MOVE_DURATION_S, events=moves)


ONE_MOVES = _mobile("one-moves", "MN moves", _MN_MOVES)
BOTH_MOVE = _mobile("both-move", "MN and CN move at once", _MN_MOVES, _CN_MOVES)

# -- WLAN to LTE --------------------------------------------------------------------------------------------------------
OVERLAPS_S = (0.0, 0.2, 1.0, 3.0, 10.0)
AFTER_S = 6.0


def _overlap(overlap_s: float) -> Scenario:
    """LTE comes into range; the WLAN is lost `overlap_s` later, and nobody is told."""
    lost_s = 4.0 + overlap_s
    return Scenario(
        name=f"overlap-{overlap_s:g}".replace(".", "_"),
        label=f"WLAN → LTE, {overlap_s:g} s of both",
        duration_s=lost_s + AFTER_S,
        events=(
            Event(at_s=lost_s, kind="carrier-loss", target=WLAN),
            Event(at_s=lost_s - overlap_s, kind="carrier-return", target=LTE),
        ),
    )


OVERLAPS = {overlap_s: _overlap(overlap_s) for overlap_s in OVERLAPS_S}
ABRUPT = OVERLAPS[0.0]
LONG = tuple(scenario.name for overlap_s, scenario in OVERLAPS.items() if overlap_s >= 1)
"""An address by DHCP takes about half a second."""
LATER = Scenario(
    name="wlan-appears",
    label="LTE, WLAN appears, LTE closed",
    duration_s=14.0,
    events=(
        Event(at_s=4.0, kind="carrier-return", target=WLAN),
        Event(at_s=7.0, kind="planned-handover", target=LTE, parameters={"to": WLAN, "overlap_s": 1.0}),
    ),
)
LOSS, CLOSED = "stream.handovers.1", "stream.handovers.2"
"""The last events of an overlap, and of LATER."""

SCENARIOS = (ONE_MOVES, BOTH_MOVE, *OVERLAPS.values(), LATER, TOUR)
_ALL = tuple(scenario.name for scenario in SCENARIOS)
_ALL_BUT_SIMULTANEOUS = tuple(name for name in _ALL if name != BOTH_MOVE.name)


def _survives(claim: str, text: str, where: str, mechanisms: tuple[str, ...], scenarios: tuple[str, ...], yes: bool) -> Claim:
    return Claim(
        id=claim,
        text=text,
        source=Source(key=PAPER, where=where),
        metric="survived",
        aggregate="all",
        bound=Bound(op="==", value=yes),
        mechanisms=mechanisms,
        scenarios=scenarios,
    )


def _smooth(claim: str, text: str, event: str, scenarios: tuple[str, ...]) -> Claim:
    return Claim(
        id=claim,
        text=text,
        source=Source(key=PAPER, where="section 5.2"),
        metric=f"{event}.gap_beyond_round_trip_ms",
        aggregate="max",
        bound=Bound(op="<=", value=SMOOTH_MS, unit="ms"),
        mechanisms=OURS,
        scenarios=scenarios,
        published="“smooth”, no figure",
        min_repetitions=5,
    )


def _changes(claim: str, text: str, metric: str, op: str, value: float, mechanisms: tuple[str, ...]) -> Claim:
    """About a care-of address that changes: the MN moves, the CN does not."""
    return Claim(
        id=claim,
        text=text,
        source=Source(key=PAPER, where="section 5.1"),
        metric=f"movement.{metric}",
        aggregate="max" if op == "<=" else "min",
        bound=Bound(op=op, value=value),
        mechanisms=mechanisms,
        scenarios=(ONE_MOVES.name,),
    )


EXPERIMENT = Experiment(
    name="mip-mptcp-movement",
    title="Movement with Mobile IP + MPTCP",
    summary="A download while hosts move. Two mobile hosts, each with one WLAN interface and a home agent of its own, go to "
    "another WLAN: one of them, or both at the same moment. A host goes from WLAN to LTE, both being in range for 0 to 10 s; "
    "or is told to give up LTE when a WLAN has appeared. One interface is taken from home to A, to B and home again.",
    scenarios=SCENARIOS,
    mechanisms=(ONLY_MPTCP, ONLY_MOBILE_IP, BOTH, DIRECT, TO_THE_LETTER),
    claims=(
        _survives(
            "simultaneous-needs-mobile-ip",
            "MPTCP alone loses a connection whose hosts both move at once: neither can tell the other its new address",
            "section 5.1",
            (ONLY_MPTCP,),
            (BOTH_MOVE.name,),
            yes=False,
        ),
        _survives(
            "simultaneous",
            "“MIP is also used to ensure reachability in the case simultaneous movement”: with the home addresses' subflow "
            "open (policy all), or joining again when the last care-of address fails (coa-only), the connection survives",
            "section 5.1",
            OURS,
            (BOTH_MOVE.name,),
            yes=True,
        ),
        _survives(
            "closing-home-contradicts-it",
            "“MPTCP could close the subflow associated to the HoA”: closed for good (policy coa-only-no-rejoin) it cannot "
            "rescue what section 5.1 wants it for; the policy that resolves this contradiction is coa-only: join again",
            "section 5.1",
            (TO_THE_LETTER,),
            (BOTH_MOVE.name,),
            yes=False,
        ),
        _survives(
            "survives",
            "Established communications survive all other movements, every byte in its place",
            "section 5.2",
            OURS,
            _ALL_BUT_SIMULTANEOUS,
            yes=True,
        ),
        _smooth(
            "make-before-break",
            f"“Handover is ‘smooth’”, “make-before-break”: when the old network is given up after the new one was joined, the "
            f"longest gap is one round trip and {SMOOTH_MS:g} ms",
            CLOSED,
            (LATER.name,),
        ),
        _smooth(
            "overlap-unannounced",
            "The same when the old network is lost without a word, after at least 1 s of both",
            LOSS,
            LONG,
        ),
        Claim(
            id="slow-is-better",
            text="“Better performance will be achieved when the handovers are ‘slow’”, with both care-of addresses for as long "
            "as possible: with an overlap the median dip is smaller than without",
            source=Source(key=PAPER, where="section 5.2"),
            metric="movement.dip_ms",
            bound=Bound(op="<=", value=1.0, unit="ms", other_scenarios=(ABRUPT.name,)),
            mechanisms=OURS,
            scenarios=tuple(scenario.name for scenario in OVERLAPS.values() if scenario is not ABRUPT),
            published="no figure",
            min_repetitions=5,
        ),
        _changes(
            "binding-updated",
            "“When the MN moves, MPTCP uses the new CoA and MIP (as normal) updates the HoA-CoA binding”: the new care-of "
            "address is registered",
            "bindings_updated", ">=", 1.0, (BOTH, DIRECT, TO_THE_LETTER, ONLY_MOBILE_IP),
        ),
        _changes("subflow-joined", "a subflow joins from it", "subflows_joined", ">=", 1.0, (*OURS, TO_THE_LETTER, ONLY_MPTCP)),
        _changes("subflow-left", "that of the old one is left", "subflows_left", ">=", 1.0, (*OURS, TO_THE_LETTER, ONLY_MPTCP)),
        _changes(
            "no-data-fin", "and nothing of it ends the connection: there is no DATA_FIN", "data_fins", "<=", 0.0,
            (*OURS, TO_THE_LETTER, ONLY_MPTCP),
        ),
        Claim(
            id="tour",
            text="On the tour from home to A, to B and home, no move costs more than 5 s",
            metric="gap_ms",
            aggregate="max",
            bound=Bound(op="<=", value=5000.0, unit="ms"),
            mechanisms=OURS,
            scenarios=(TOUR.name,),
        ),
    ),
    repetitions=5,
)  # fmt: skip
