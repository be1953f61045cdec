"""The registration of one interface of a mobile node as a table (RFC 5944 section 3.6, RFC 7629 section 5.1).

What is not in the table is ignored: the event means nothing in that state.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final


class State(Enum):
    """Where the registration of an interface stands."""

    DETACHED = "detached"
    """No link, or its signal is too weak."""
    DISCOVERING = "discovering"
    """A link without care-of address: agents are asked for, DHCP is waited for."""
    IDLE = "idle"
    """A care-of address whose registration is not wanted: standby, at home by another interface, or taken off by command."""
    REGISTERING = "registering"
    REGISTERED = "registered"
    REFRESHING = "refreshing"
    """Registered, and a further request is under way."""
    DEREGISTERING = "deregistering"
    DENIED = "denied"
    """Refused, or dead; tried again later."""
    RETURNING = "returning"
    """On the home link, the deregistration is under way."""
    AT_HOME = "at-home"


class Event(Enum):
    """What has happened."""

    DOWN = "down"
    """The link is gone."""
    LINK = "link"
    """There is a link, and no care-of address."""
    CARE_OF = "care-of"
    """There is a care-of address, and it shall be registered."""
    STANDBY = "standby"
    """There is a care-of address, and it shall not be registered."""
    MOVED = "moved"
    """The care-of address, or the agent, is another one than that registered."""
    HOME = "home"
    """The interface is on the home link."""
    ACCEPTED = "accepted"
    AGAIN = "again"
    """Refused, and the next request will be another one."""
    REFUSED = "refused"
    SILENT = "silent"
    """The requests of one round have all remained without reply."""
    DUE = "due"
    """Time to refresh, or something to tell."""
    EXPIRED = "expired"
    """The lifetime is over."""
    DEAD = "dead"
    """Probes through the tunnel remain without answer."""
    LEAVE = "leave"
    """The binding shall go."""
    WAITED = "waited"
    """The time after a refusal is over."""


class Effect(Enum):
    """What is done on the way from one state to the next."""

    DISCOVER = "discover"
    REQUEST = "request"
    """Begin with a new request at once."""
    RETRY = "retry"
    """Send a corrected request as soon as the rate allows."""
    FORGET = "forget"
    """No request is under way any more."""
    ESTABLISH = "establish"
    """The binding is there: its tunnel may open."""
    DROP = "drop"
    """The binding, and with it the tunnel, is not used any more."""
    WITHDRAW = "withdraw"
    """The home agent may still have the binding: deregister it through another interface."""
    DEREGISTER = "deregister"
    RETURN = "return"
    """Use the home address here, and deregister everything."""
    SETTLE = "settle"
    """The home agent has let go: announce the home address once more."""
    DEPART = "depart"
    """Stop using the home address here."""
    WAIT = "wait"
    OTHER_AGENT = "other-agent"
    """Use another foreign agent if there is one, and go on."""


S, V, E = State, Event, Effect

_LEAVING: Final = {
    V.DOWN: ((E.FORGET, E.DROP, E.WITHDRAW), S.DETACHED),
    V.LINK: ((E.FORGET, E.DROP, E.WITHDRAW, E.DISCOVER), S.DISCOVERING),
    V.STANDBY: ((E.FORGET, E.DROP), S.IDLE),
    V.HOME: ((E.FORGET, E.DROP, E.RETURN), S.RETURNING),
}
"""What takes an interface out of every state with a care-of address."""

_HOLDING: Final = {
    **_LEAVING,
    V.MOVED: ((E.DROP, E.REQUEST), S.REGISTERING),
    V.EXPIRED: ((E.DROP, E.REQUEST), S.REGISTERING),
    V.DEAD: ((E.FORGET, E.DROP, E.WITHDRAW, E.WAIT), S.DENIED),
    V.LEAVE: ((E.DEREGISTER,), S.DEREGISTERING),
    V.DUE: ((E.REQUEST,), S.REFRESHING),
}
"""What ends or renews a binding."""

_AT_HOME: Final = {
    V.DOWN: ((E.FORGET, E.DEPART), S.DETACHED),
    V.LINK: ((E.FORGET, E.DEPART, E.DISCOVER), S.DISCOVERING),
    V.CARE_OF: ((E.DEPART, E.REQUEST), S.REGISTERING),
    V.STANDBY: ((E.FORGET, E.DEPART), S.IDLE),
}

_ROWS: Final[dict[State, dict[Event, tuple[tuple[Effect, ...], State]]]] = {
    S.DETACHED: {
        V.LINK: ((E.DISCOVER,), S.DISCOVERING),
        V.CARE_OF: ((E.DISCOVER, E.REQUEST), S.REGISTERING),
        V.STANDBY: ((E.DISCOVER,), S.IDLE),
        V.HOME: ((E.DISCOVER, E.RETURN), S.RETURNING),
    },
    S.DISCOVERING: {
        V.DOWN: ((), S.DETACHED),
        V.CARE_OF: ((E.REQUEST,), S.REGISTERING),
        V.STANDBY: ((), S.IDLE),
        V.HOME: ((E.RETURN,), S.RETURNING),
    },
    S.IDLE: {
        V.DOWN: ((), S.DETACHED),
        V.LINK: ((E.DISCOVER,), S.DISCOVERING),
        V.CARE_OF: ((E.REQUEST,), S.REGISTERING),
        V.HOME: ((E.RETURN,), S.RETURNING),
    },
    S.REGISTERING: {
        **_LEAVING,
        V.MOVED: ((E.REQUEST,), S.REGISTERING),
        V.DUE: ((E.REQUEST,), S.REGISTERING),
        V.ACCEPTED: ((E.ESTABLISH,), S.REGISTERED),
        V.AGAIN: ((E.RETRY,), S.REGISTERING),
        V.REFUSED: ((E.FORGET, E.WAIT), S.DENIED),
        V.SILENT: ((E.OTHER_AGENT,), S.REGISTERING),
        V.LEAVE: ((E.DEREGISTER,), S.DEREGISTERING),
    },
    S.REGISTERED: dict(_HOLDING),
    S.REFRESHING: {
        **_HOLDING,
        V.ACCEPTED: ((E.ESTABLISH,), S.REGISTERED),
        V.AGAIN: ((E.RETRY,), S.REFRESHING),
        # What was granted stands until it is over.
        V.REFUSED: ((E.WAIT,), S.REFRESHING),
        V.SILENT: ((E.OTHER_AGENT,), S.REFRESHING),
        V.WAITED: ((E.REQUEST,), S.REFRESHING),
    },
    S.DEREGISTERING: {
        **_LEAVING,
        V.ACCEPTED: ((E.FORGET, E.DROP), S.IDLE),
        V.AGAIN: ((E.RETRY,), S.DEREGISTERING),
        V.REFUSED: ((E.FORGET, E.DROP), S.IDLE),
        V.SILENT: ((E.FORGET, E.DROP), S.IDLE),
        V.EXPIRED: ((E.FORGET, E.DROP), S.IDLE),
        V.DUE: ((E.DROP, E.REQUEST), S.REGISTERING),
    },
    S.DENIED: {
        **_LEAVING,
        V.MOVED: ((E.REQUEST,), S.REGISTERING),
        V.DUE: ((E.REQUEST,), S.REGISTERING),
        V.WAITED: ((E.REQUEST,), S.REGISTERING),
    },
    S.RETURNING: {
        **_AT_HOME,
        V.ACCEPTED: ((E.FORGET, E.SETTLE), S.AT_HOME),
        V.AGAIN: ((E.RETRY,), S.RETURNING),
        V.REFUSED: ((E.FORGET, E.WAIT), S.RETURNING),
        V.WAITED: ((E.RETURN,), S.RETURNING),
    },
    S.AT_HOME: {**_AT_HOME, V.DUE: ((E.RETURN,), S.RETURNING)},
}
# A withdrawal may begin while the interface is still there with another state: STANDBY while deregistering goes on by itself.
del _ROWS[S.DEREGISTERING][V.STANDBY]

TABLE: Final[Mapping[tuple[State, Event], tuple[tuple[Effect, ...], State]]] = {
    (state, event): what for state, row in _ROWS.items() for event, what in row.items()
}

BOUND: Final = frozenset((S.REGISTERED, S.REFRESHING))
"""States in which the home agent has the binding, as far as is known here."""
