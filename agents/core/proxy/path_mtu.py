"""Path MTU discovery on subflows (RFC 1191, RFC 8201): a router's message names ends that this host's TCP does not know."""

from agents.core.proxy import packets
from agents.core.proxy.actions import Action, Log
from agents.core.proxy.connection import Connection
from agents.core.proxy.subflow import Subflow
from agents.core.sequence import unwrap32
from agents.wire.icmp import TooBig


def take_report(connection: Connection, subflow: Subflow, report: TooBig, actions: list[Action]) -> bool:
    """A segment of a subflow did not fit: this host's TCP is told in its own terms. False: not believed, nothing was done.

    Its packets have to be smaller than those of the subflow, by the options that the proxy adds. Only who has seen the
    subflow's traffic can name a segment that is on its way (RFC 5927 section 7.2).
    """
    seq = unwrap32(report.seq, subflow.iss, subflow.send_acked)
    if not subflow.send_acked <= seq < subflow.send_end or connection.half_open or connection.fallback:
        return False
    limit = max(report.mtu, packets.LEAST_MTU[len(connection.local)]) - packets.option_space(connection)
    if limit <= connection.host_mtu:  # equal: this host's kernel forgets what it was told after some minutes
        news = limit < connection.host_mtu
        actions += packets.shrink(connection, limit)
        fields = {"connection": connection.number, "subflow": subflow.number, "mtu": report.mtu, "for_host": limit}
        actions += [Log("too-big", fields)] if news else []
    return True
