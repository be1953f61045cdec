"""The two tables of states: every state with every input."""

import pytest

from agents.core.proxy.config import ProxyConfig
from agents.core.proxy.connection import Connection
from agents.core.proxy.states import CARRYING, CONNECTION, SUBFLOW, Input, State, SubflowInput, SubflowState
from agents.core.proxy.subflow import Subflow

S, I = State, Input  # noqa: E741
EXPECTED: dict[State, dict[Input, State]] = {
    S.SYN_SENT: {I.CAPABLE_ANSWERED: S.ESTABLISHED},
    S.SYN_RECEIVED: {I.CAPABLE_ANSWERED: S.ESTABLISHED},
    S.ESTABLISHED: {I.LOCAL_FIN: S.FIN_WAIT_1, I.REMOTE_FIN: S.CLOSE_WAIT},
    S.FIN_WAIT_1: {I.LOCAL_FIN_ACKED: S.FIN_WAIT_2, I.REMOTE_FIN: S.CLOSING},
    S.FIN_WAIT_2: {I.REMOTE_FIN: S.TIME_WAIT},
    S.CLOSE_WAIT: {I.LOCAL_FIN: S.LAST_ACK},
    S.CLOSING: {I.LOCAL_FIN_ACKED: S.TIME_WAIT},
    S.LAST_ACK: {I.LOCAL_FIN_ACKED: S.TIME_WAIT},
    S.TIME_WAIT: {},
    S.CLOSED: {},
}
"""RFC 9293 section 3.3.2, without the ends by RST and timers, which every state but CLOSED has."""
ALWAYS = {I.RESET: S.CLOSED, I.TIMEOUT: S.CLOSED}

F, J = SubflowState, SubflowInput
EXPECTED_SUBFLOW: dict[SubflowState, dict[SubflowInput, SubflowState]] = {
    F.JOIN_SENT: {J.JOIN_ANSWERED: F.JOIN_CONFIRMING},
    F.JOIN_RECEIVED: {J.JOIN_VERIFIED: F.ESTABLISHED},
    F.JOIN_CONFIRMING: {J.JOIN_CONFIRMED: F.ESTABLISHED, J.CLOSE: F.FIN_SENT, J.PEER_FIN: F.FIN_RECEIVED},
    F.ESTABLISHED: {J.CLOSE: F.FIN_SENT, J.PEER_FIN: F.FIN_RECEIVED},
    F.FIN_SENT: {J.PEER_FIN: F.FIN_RECEIVED},
    F.FIN_RECEIVED: {J.FIN_ACKED: F.CLOSED},
    F.CLOSED: {},
}


@pytest.mark.parametrize("what", Input)
@pytest.mark.parametrize("state", State)
def test_connection(state: State, what: Input) -> None:
    expected = EXPECTED[state].get(what)
    if expected is None and state is not State.CLOSED:
        expected = ALWAYS.get(what)
    assert CONNECTION.get((state, what)) is expected
    connection = Connection(1, ProxyConfig(), bytes(4), 1, bytes(4), 2, True, state, 0.0, bytes(8))
    assert connection.change(what) == (expected is not None)
    assert connection.state is (expected or state)


@pytest.mark.parametrize("what", SubflowInput)
@pytest.mark.parametrize("state", SubflowState)
def test_subflow(state: SubflowState, what: SubflowInput) -> None:
    expected = EXPECTED_SUBFLOW[state].get(what)
    if what is SubflowInput.DEAD and state is not SubflowState.CLOSED:
        expected = SubflowState.CLOSED
    assert SUBFLOW.get((state, what)) is expected
    subflow = Subflow(0, bytes(4), 1, bytes(4), 2, 0, state=state)
    assert subflow.change(what) == (expected is not None)
    assert subflow.state is (expected or state)
    assert subflow.alive == (subflow.state is not SubflowState.CLOSED)
    assert subflow.carries == (subflow.state in CARRYING)


def test_the_tables_name_nothing_else() -> None:
    assert len(EXPECTED) == len(State)
    assert len(EXPECTED_SUBFLOW) == len(SubflowState)
    assert set(CONNECTION) <= {(state, what) for state in State for what in Input}
    assert set(SUBFLOW) <= {(state, what) for state in SubflowState for what in SubflowInput}


def test_every_state_is_reached_and_every_state_ends() -> None:
    reached = {State.SYN_SENT, State.SYN_RECEIVED}
    for _ in State:
        reached |= {after for (before, _), after in CONNECTION.items() if before in reached}
    assert reached == set(State)
    subflows = {SubflowState.JOIN_SENT, SubflowState.JOIN_RECEIVED, SubflowState.ESTABLISHED}
    for _ in SubflowState:
        subflows |= {after for (before, _), after in SUBFLOW.items() if before in subflows}
    assert subflows == set(SubflowState)
    assert {before for before, _ in CONNECTION} == set(State) - {State.CLOSED}
    assert {before for before, _ in SUBFLOW} == set(SubflowState) - {SubflowState.CLOSED}


@pytest.mark.parametrize("first", [Input.LOCAL_FIN, Input.REMOTE_FIN])
def test_every_order_of_ends_leads_to_time_wait(first: Input) -> None:
    """Each of the two ends, and the knowledge of ours, in any possible order."""
    orders = [
        [Input.LOCAL_FIN, Input.LOCAL_FIN_ACKED, Input.REMOTE_FIN],
        [Input.LOCAL_FIN, Input.REMOTE_FIN, Input.LOCAL_FIN_ACKED],
        [Input.REMOTE_FIN, Input.LOCAL_FIN, Input.LOCAL_FIN_ACKED],
    ]
    for order in (order for order in orders if order[0] is first):
        state = State.ESTABLISHED
        for what in order:
            assert state is not State.TIME_WAIT
            state = CONNECTION[(state, what)]
        assert state is State.TIME_WAIT
