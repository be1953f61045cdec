"""Strategies that make any message, extension and selector of Mobile IPv4, and a few messages by hand."""

import ipaddress
from typing import Any

from hypothesis import strategies as st

from agents.wire.mobileip import selectors
from agents.wire.mobileip.values import (
    Authentication,
    AuthenticationKind,
    Challenge,
    EncapsulatingDelivery,
    FlowBinding,
    GeneralizedAuthentication,
    Multipath,
    Nai,
    Reply,
    Request,
    RequestFlag,
    Selector,
    TunnelData,
    UdpTunnelReply,
    UdpTunnelRequest,
    UnknownExtension,
)

octet, word, double = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
ipv4 = st.ip_addresses(v=4).map(str)
ipv6 = st.ip_addresses(v=6).map(str)
authenticators = st.sampled_from((16, 32)).flatmap(lambda n: st.binary(min_size=n, max_size=n))


def ranges(values: Any, key: Any = None) -> Any:
    return st.none() | st.tuples(values, values).map(lambda pair: tuple(sorted(pair, key=key))) | values.map(lambda v: (v, v))


@st.composite
def selector(draw: Any, version: int | None = None) -> Selector:
    version = version or draw(st.sampled_from((4, 6)))
    addresses = ranges(ipv4 if version == 4 else ipv6, ipaddress.ip_address)
    fields = {
        "source": draw(addresses), "destination": draw(addresses), "spi": draw(ranges(double)),
        "source_port": draw(ranges(word)), "destination_port": draw(ranges(word)),
        "traffic_class": draw(ranges(st.integers(0, 63).map(lambda dscp: dscp << 2))), "protocol": draw(ranges(octet)),
    }  # fmt: skip
    if version == 6:
        fields["flow_label"] = draw(ranges(st.integers(0, 0xFFFFF)))
    single = sorted(name for name, value in fields.items() if value and value[0] == value[1])
    explicit = draw(st.sets(st.sampled_from(single))) if single else ()
    return Selector(version=version, explicit_end=frozenset(explicit), **fields)


@st.composite
def flow_bindings(draw: Any) -> FlowBinding:
    bids = tuple(draw(st.lists(octet, max_size=10)))
    if draw(st.booleans()):
        return selectors.flow_binding(draw(octet), bids, draw(selector()))
    return FlowBinding(draw(octet), bids, draw(st.sampled_from((0, 3, 255))), draw(st.binary(max_size=30)))


KNOWN = {32, 33, 34, 36, 44, 130, 131, 132, 144, 154}
unknown = st.one_of(
    st.builds(UnknownExtension, st.integers(128, 255).filter(lambda kind: kind not in KNOWN), st.binary(max_size=255)),
    st.builds(UnknownExtension, st.just(144), st.binary(min_size=1, max_size=255).filter(lambda data: data[0] > 0)),
    st.builds(UnknownExtension, st.just(154), st.binary(min_size=1, max_size=300).filter(lambda data: data[0] not in (1, 2))),
)
authentications = st.builds(Authentication, st.sampled_from(AuthenticationKind), double, authenticators)
standard = st.one_of(  # what tshark knows as well
    authentications,
    st.builds(GeneralizedAuthentication, octet, double, authenticators),
    st.builds(Nai, st.binary(min_size=1, max_size=255)),
    st.builds(Challenge, st.binary(max_size=255)),
    st.just(EncapsulatingDelivery()),
    st.builds(UdpTunnelRequest, st.booleans(), st.booleans(), octet, st.integers(0, (1 << 30) - 1)),
    st.builds(UdpTunnelReply, octet, st.booleans(), word, st.integers(0, 0x7FFF)),
)
multipaths = st.builds(Multipath, octet, octet, octet, st.booleans(), st.booleans(), st.integers(0, 63))
extensions = standard | multipaths | flow_bindings() | unknown
identifications = st.integers(0, (1 << 64) - 1)


def requests(of: Any = extensions) -> Any:
    listed = st.lists(of, max_size=4).map(tuple)
    return st.builds(Request, ipv4, ipv4, ipv4, word, identifications, st.sampled_from([*map(RequestFlag, range(256))]), listed)


def replies(of: Any = extensions) -> Any:
    return st.builds(Reply, octet, ipv4, ipv4, word, identifications, st.lists(of, max_size=4).map(tuple))


tunnel_data = st.builds(TunnelData, octet, st.binary(max_size=200), word)
messages = requests() | replies() | tunnel_data
