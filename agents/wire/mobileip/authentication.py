"""Authenticators of Mobile IPv4 messages (RFC 5944 section 3.5, RFC 4721 section 5).

An authenticator covers the UDP payload from its first octet through Type, Length and SPI of its own extension. The SPI names
the algorithm; which SPI means which algorithm and key is configuration.
"""

import hashlib
import hmac
import struct
from enum import Enum

from agents.wire.errors import WireError
from agents.wire.mobileip.values import Authentication, AuthenticationKind, GeneralizedAuthentication

_SHORT = struct.Struct("!BBI")
_LONG = struct.Struct("!BBHI")
GENERALIZED = 36
"""Extension type of the generalised authenticator, which has the long format."""


class Algorithm(Enum):
    """How an authenticator is computed. The values are those of configuration files."""

    HMAC_MD5 = "hmac-md5"
    """The default of RFC 5944 section 5.1 (RFC 2104)."""
    KEYED_MD5 = "keyed-md5"
    """MD5 over key, data and key: "prefix+suffix" of RFC 2002, for old peers."""
    HMAC_SHA256 = "hmac-sha256"
    """RFC 6234; no number is assigned, so both ends must agree on an SPI."""


AUTHENTICATOR_OCTETS = {Algorithm.HMAC_MD5: 16, Algorithm.KEYED_MD5: 16, Algorithm.HMAC_SHA256: 32}


def authenticator(algorithm: Algorithm, key: bytes, covered: bytes) -> bytes:
    """The authenticator of the octets `covered`: 16 octets, 32 for HMAC-SHA-256."""
    if algorithm is Algorithm.HMAC_MD5:
        return hmac.digest(key, covered, "md5")
    if algorithm is Algorithm.KEYED_MD5:
        return hashlib.md5(key + covered + key).digest()
    return hmac.digest(key, covered, "sha256")


def append_authentication(
    data: bytes, kind: AuthenticationKind, spi: int, key: bytes, algorithm: Algorithm = Algorithm.HMAC_MD5
) -> bytes:
    """The encoded message `data` with an authentication extension behind it. Raises WireError for an SPI beyond 32 bits."""
    covered = data + _head(_SHORT, kind, 4 + AUTHENTICATOR_OCTETS[algorithm], spi)
    return covered + authenticator(algorithm, key, covered)


def append_generalized_authentication(
    data: bytes, subtype: int, spi: int, key: bytes, algorithm: Algorithm = Algorithm.HMAC_MD5
) -> bytes:
    """The same with a generalised authentication extension (type 36; subtype 1: MN-AAA). Raises WireError."""
    covered = data + _head(_LONG, GENERALIZED, subtype, 4 + AUTHENTICATOR_OCTETS[algorithm], spi)
    return covered + authenticator(algorithm, key, covered)


def verify(
    data: bytes,
    offset_of_extension: int,
    extension: Authentication | GeneralizedAuthentication,
    key: bytes,
    algorithm: Algorithm = Algorithm.HMAC_MD5,
) -> bool:
    """Whether `extension`, which begins at that offset of the received message `data`, is the work of somebody with `key`.

    Takes the same time wherever the difference is. An authenticator of another length is wrong.
    """
    head = _LONG.size if isinstance(extension, GeneralizedAuthentication) else _SHORT.size
    expected = authenticator(algorithm, key, data[: offset_of_extension + head])
    return hmac.compare_digest(expected, extension.authenticator)


def _head(layout: struct.Struct, *values: int) -> bytes:
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise WireError(f"authentication extension, SPI {values[-1]}: {error}") from None
