"""The state machines of connections and subflows, as tables: (state, input) -> next state.

The connection has the states of TCP (RFC 9293 section 3.3.2), because TCP and the data level of MPTCP share them: the proxy
passes their changes on and makes none of its own (paper section 3.1 and figure 4a). An input that a state does not list changes
nothing.
"""

from enum import Enum


class State(Enum):
    """Of a connection."""

    SYN_SENT = "syn-sent"
    """Our host's SYN asks for MPTCP."""
    SYN_RECEIVED = "syn-received"
    """The peer's SYN asks for MPTCP."""
    ESTABLISHED = "established"
    FIN_WAIT_1 = "fin-wait-1"
    """Our host has finished."""
    FIN_WAIT_2 = "fin-wait-2"
    """... and the peer knows."""
    CLOSE_WAIT = "close-wait"
    """The peer has finished."""
    CLOSING = "closing"
    """Both have, neither knows of the other."""
    LAST_ACK = "last-ack"
    """The peer, then our host has finished."""
    TIME_WAIT = "time-wait"
    """Both have finished and both know."""
    CLOSED = "closed"


class Input(Enum):
    """What changes the state of a connection. "Local" is the TCP of this host."""

    CAPABLE_ANSWERED = "capable-answered"
    """A SYN/ACK, or the third ACK, with the right MP_CAPABLE."""
    LOCAL_FIN = "local-fin"
    LOCAL_FIN_ACKED = "local-fin-acked"
    REMOTE_FIN = "remote-fin"
    """This host's TCP has acknowledged the peer's end of data: all before it has arrived."""
    RESET = "reset"
    TIMEOUT = "timeout"


_OPEN_STATES = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK)
_ENDS = (State.SYN_SENT, State.SYN_RECEIVED, *_OPEN_STATES, State.TIME_WAIT)

CONNECTION: dict[tuple[State, Input], State] = {
    (State.SYN_SENT, Input.CAPABLE_ANSWERED): State.ESTABLISHED,
    (State.SYN_RECEIVED, Input.CAPABLE_ANSWERED): State.ESTABLISHED,
    (State.ESTABLISHED, Input.LOCAL_FIN): State.FIN_WAIT_1,
    (State.ESTABLISHED, Input.REMOTE_FIN): State.CLOSE_WAIT,
    (State.FIN_WAIT_1, Input.LOCAL_FIN_ACKED): State.FIN_WAIT_2,
    (State.FIN_WAIT_1, Input.REMOTE_FIN): State.CLOSING,
    (State.FIN_WAIT_2, Input.REMOTE_FIN): State.TIME_WAIT,
    (State.CLOSE_WAIT, Input.LOCAL_FIN): State.LAST_ACK,
    (State.CLOSING, Input.LOCAL_FIN_ACKED): State.TIME_WAIT,
    (State.LAST_ACK, Input.LOCAL_FIN_ACKED): State.TIME_WAIT,
    **{(state, Input.RESET): State.CLOSED for state in _ENDS},
    **{(state, Input.TIMEOUT): State.CLOSED for state in _ENDS},
}


class SubflowState(Enum):
    """Of a subflow."""

    JOIN_SENT = "join-sent"
    """Our MP_JOIN SYN waits for its SYN/ACK."""
    JOIN_RECEIVED = "join-received"
    """We have answered the peer's MP_JOIN and wait for its HMAC."""
    JOIN_CONFIRMING = "join-confirming"
    """We have sent our HMAC and wait for a data ACK; data may be received already."""
    ESTABLISHED = "established"
    FIN_SENT = "fin-sent"
    FIN_RECEIVED = "fin-received"
    """... and answered with our FIN."""
    CLOSED = "closed"


class SubflowInput(Enum):
    """What changes the state of a subflow."""

    JOIN_ANSWERED = "join-answered"
    JOIN_VERIFIED = "join-verified"
    """The HMAC of the peer's third ACK is right."""
    JOIN_CONFIRMED = "join-confirmed"
    """The fourth ACK, or anything else at data level."""
    CLOSE = "close"
    PEER_FIN = "peer-fin"
    FIN_ACKED = "fin-acked"
    """Our FIN, after the peer's."""
    DEAD = "dead"
    """Reset, broken, or its address is gone."""


_LIVING = tuple(state for state in SubflowState if state is not SubflowState.CLOSED)

SUBFLOW: dict[tuple[SubflowState, SubflowInput], SubflowState] = {
    (SubflowState.JOIN_SENT, SubflowInput.JOIN_ANSWERED): SubflowState.JOIN_CONFIRMING,
    (SubflowState.JOIN_RECEIVED, SubflowInput.JOIN_VERIFIED): SubflowState.ESTABLISHED,
    (SubflowState.JOIN_CONFIRMING, SubflowInput.JOIN_CONFIRMED): SubflowState.ESTABLISHED,
    (SubflowState.JOIN_CONFIRMING, SubflowInput.CLOSE): SubflowState.FIN_SENT,
    (SubflowState.ESTABLISHED, SubflowInput.CLOSE): SubflowState.FIN_SENT,
    (SubflowState.JOIN_CONFIRMING, SubflowInput.PEER_FIN): SubflowState.FIN_RECEIVED,
    (SubflowState.ESTABLISHED, SubflowInput.PEER_FIN): SubflowState.FIN_RECEIVED,
    (SubflowState.FIN_SENT, SubflowInput.PEER_FIN): SubflowState.FIN_RECEIVED,
    (SubflowState.FIN_RECEIVED, SubflowInput.FIN_ACKED): SubflowState.CLOSED,
    **{(state, SubflowInput.DEAD): SubflowState.CLOSED for state in _LIVING},
}

CARRYING = frozenset({SubflowState.ESTABLISHED, SubflowState.JOIN_CONFIRMING})
"""States in which a subflow carries data and acknowledgements."""
