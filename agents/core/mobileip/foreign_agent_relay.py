"""Messages as a foreign agent passes them on: cut behind the authorising extension, its own added (RFC 5944 section 3.7)."""

from agents.core.mobileip.security import SecurityAssociation
from agents.wire.mobileip import authentication, codec
from agents.wire.mobileip.values import Authentication, AuthenticationKind, Challenge, Reply, Request


def cut(data: bytes, message: Request | Reply, number: int) -> bytes:
    """The octets through extension `number`: what is behind is from the last hop, for the last hop."""
    end = message.offsets[number + 1] if number + 1 < len(message.offsets) else len(data)
    return data[:end]


def to_home_agent(data: bytes, request: Request, number: int, shared: SecurityAssociation | None) -> bytes:
    """The request for the home agent. Extension 34 is added where an association is shared, but not to deregistrations."""
    passed = cut(data, request, number)
    if shared is None or request.lifetime_s == 0:
        return passed
    return _signed(passed, AuthenticationKind.FOREIGN_HOME, shared)


def to_mobile_node(
    data: bytes, reply: Reply, number: int, challenge: bytes | None, shared: SecurityAssociation | None
) -> bytes:
    """The reply for the mobile node, with the next challenge, and extension 33 where an association is shared."""
    passed = cut(data, reply, number)
    if challenge is not None:
        passed += codec.encode_extension(Challenge(challenge))
    return _signed(passed, AuthenticationKind.MOBILE_FOREIGN, shared) if shared is not None else passed


def refused(request: Request, code: int, lifetime_s: int, challenge: bytes | None, shared: SecurityAssociation | None) -> bytes:
    """A reply of the foreign agent itself."""
    extensions = (Challenge(challenge),) if challenge is not None else ()
    reply = Reply(code, request.home_address, request.home_agent, lifetime_s, request.identification, extensions)
    data = codec.encode(reply)
    return _signed(data, AuthenticationKind.MOBILE_FOREIGN, shared) if shared is not None else data


def home_agent_is_authentic(data: bytes, reply: Reply, shared: SecurityAssociation) -> bool:
    """Whether extension 34 of a reply is there, once, and good."""
    found = [
        (offset, item)
        for offset, item in zip(reply.offsets, reply.extensions, strict=True)
        if isinstance(item, Authentication) and item.kind is AuthenticationKind.FOREIGN_HOME
    ]
    if len(found) != 1 or found[0][1].spi != shared.spi:
        return False
    offset, extension = found[0]
    return authentication.verify(data, offset, extension, shared.key, shared.algorithm)


def _signed(data: bytes, kind: AuthenticationKind, shared: SecurityAssociation) -> bytes:
    return authentication.append_authentication(data, kind, shared.spi, shared.key, shared.algorithm)
