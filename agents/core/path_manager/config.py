"""Parameters of the path manager, and its policies as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final


class HomeUse(Enum):
    """When the home address carries an established connection."""

    ACTIVE = "active"
    BACKUP = "backup"
    UNTIL_CARE_OF = "until-care-of"
    """Only while no care-of address does: the way through the home agent is the longer one."""


class CareOfUse(Enum):
    """Which care-of addresses carry it."""

    ALL = "all"
    CHEAPEST = "cheapest"
    """Those of the lowest cost that work; the others are backup."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which addresses carry a connection."""

    home: HomeUse
    care_of: CareOfUse
    rejoin_home: bool = True
    """The home address joins again when the last care-of address fails: what saves a connection if both hosts move at once."""


POLICIES: Final[Mapping[str, Policy]] = {
    "all": Policy(HomeUse.ACTIVE, CareOfUse.ALL),
    "coa-only": Policy(HomeUse.UNTIL_CARE_OF, CareOfUse.ALL),
    "coa-only-no-rejoin": Policy(HomeUse.UNTIL_CARE_OF, CareOfUse.ALL, rejoin_home=False),
    "hoa-backup": Policy(HomeUse.BACKUP, CareOfUse.ALL),
    "cheapest": Policy(HomeUse.BACKUP, CareOfUse.CHEAPEST),
}


class OnDeath(Enum):
    """What becomes of a subflow whose path is silently dead."""

    CLOSE = "close"
    """It is closed and the peer is told by another subflow: it sends what was lost at once."""
    DEMOTE = "demote"
    """It becomes backup. MP_PRIO goes by the dead path itself, so a sending peer does not learn of it."""
    OBSERVE = "observe"
    """Only the log tells."""


@dataclass(frozen=True, slots=True)
class Detection:
    """When a path counts as silently dead, and when as alive again."""

    enabled: bool = True
    action: OnDeath = OnDeath.CLOSE
    measure_interval_s: float = 0.05
    """Between two looks at TCP_INFO while a connection is open: 1 ms of work, and shorter than most
    round trips."""
    silence_rtts: float = 2.0
    """A subflow that should receive something and does not for so many round trips (and four deviations) is suspect: one
    is what an answer takes, the second is for delayed acknowledgements."""
    silence_min_s: float = 0.06
    """At least: delayed acknowledgements take 40 ms."""
    silence_max_s: float = 1.0
    """At most: TCP's own first time-out is not far then."""
    activity_s: float = 2.0
    """A subflow that has received data within this time should go on: a pause of a program longer than this is no suspicion."""
    probe_interval_s: float = 0.05
    """Between two probes of a suspect path: three of them take little longer than their time-out."""
    probe_timeout_min_s: float = 0.1
    """At least: a loaded host answers late."""
    probe_failures: int = 3
    """Unanswered in a row: at 5 % of loss a false alarm in 8000 suspicions."""
    retransmits: int = 2
    """TCP's own time-outs in a row that make a path dead where probes have never been answered (the peer may ignore them)."""
    suspect_again_s: float = 0.5
    """After an answered probe a silent subflow is let alone for so long: its program may have nothing to say."""
    restore_interval_s: float = 0.5
    """Between probes of a dead path: 170 B/s."""
    restore_answers: int = 3
    """In a row before it is used again: a path at its edge answers now and then."""
    hold_s: float = 1.0
    """A dead path rests at least so long; twice as long after every relapse..."""
    hold_max_s: float = 60.0
    """...up to this."""
    stable_s: float = 30.0
    """So long without relapse, and earlier ones are forgotten."""

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be."""
        if self.silence_min_s > self.silence_max_s:
            raise ValueError("silence_min_s must not be larger than silence_max_s")
        if self.hold_s > self.hold_max_s:
            raise ValueError("hold_s must not be larger than hold_max_s")


@dataclass(frozen=True, slots=True)
class PathManagerConfig:
    """What the core needs to know."""

    userspace: bool = True
    """The path manager is here, for each connection; else the kernel's, for all connections alike."""
    policy: str = "all"
    remote_addresses: str = "all"
    """"all": every address that the peer announces is joined from every local one (M x N); "initial": only the first.
    The in-kernel path manager joins an announced address from one local address."""
    subflows_max: int = 8
    """Of one connection."""
    announce: bool = True
    """Tell the peers of connections that were opened to this host; in-kernel path manager: endpoints are signalled."""
    retry_s: float = 0.5
    """A join that failed is tried again after this time, then ever later..."""
    retry_max_s: float = 8.0
    """...up to this."""
    join_timeout_s: float = 3.0
    """A join without any sign of it has failed after this time: by then the kernel has given up a lost SYN."""
    domains: frozenset[str] = frozenset({""})
    """All that are configured."""
    detection: Detection = field(default_factory=Detection)

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be."""
        if self.policy not in POLICIES:
            raise ValueError(f"no policy {self.policy!r}: there are {', '.join(POLICIES)}")
        if self.remote_addresses not in ("all", "initial"):
            raise ValueError('remote_addresses must be "all" or "initial"')
        if not self.userspace and len(self.domains) > 1:
            raise ValueError("several security domains need the userspace path manager: the kernel's mixes all endpoints")
