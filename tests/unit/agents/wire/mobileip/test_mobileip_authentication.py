"""Authenticators: the vectors of RFC 2104 and RFC 4231, what is covered, what is noticed."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.wire.errors import WireError
from agents.wire.mobileip import authentication, codec
from agents.wire.mobileip.authentication import Algorithm
from agents.wire.mobileip.values import Authentication, AuthenticationKind, GeneralizedAuthentication, Nai, Reply, Request

KEY = bytes(range(16))
REQUEST = codec.encode(Request("10.9.0.5", "10.9.0.1", "10.1.0.77", 60, 7, extensions=(Nai(b"mn@example.net"),)))


@pytest.mark.parametrize(
    ("algorithm", "key", "data", "expected"),
    [
        # RFC 2104, appendix
        (Algorithm.HMAC_MD5, b"\x0b" * 16, b"Hi There", "9294727a3638bb1c13f48ef8158bfc9d"),
        (Algorithm.HMAC_MD5, b"Jefe", b"what do ya want for nothing?", "750c783e6ab0b503eaa86e310a5db738"),
        (Algorithm.HMAC_MD5, b"\xaa" * 16, b"\xdd" * 50, "56be34521d144c88dbb8c733f0e8b3f6"),
        # RFC 4231 sections 4.2 and 4.3
        (Algorithm.HMAC_SHA256, b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (Algorithm.HMAC_SHA256, b"Jefe", b"what do ya want for nothing?",
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        # RFC 1321 appendix A.5: MD5 of "message digest" and of "abc", cut into key, data, key
        (Algorithm.KEYED_MD5, b"", b"message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
        (Algorithm.KEYED_MD5, b"", b"abc", "900150983cd24fb0d6963f7d28e17f72"),
    ],
)  # fmt: skip
def test_vectors(algorithm: Algorithm, key: bytes, data: bytes, expected: str) -> None:
    assert authentication.authenticator(algorithm, key, data).hex() == expected


def test_hmac_md5_written_out() -> None:
    """RFC 2104 section 2 with its two passes, over message, type, length and SPI."""
    covered = REQUEST + bytes.fromhex("201400000100")
    inner = hashlib.md5(bytes(k ^ 0x36 for k in KEY.ljust(64, b"\0")) + covered).digest()
    outer = hashlib.md5(bytes(k ^ 0x5C for k in KEY.ljust(64, b"\0")) + inner).digest()
    assert authentication.append_authentication(REQUEST, AuthenticationKind.MOBILE_HOME, 256, KEY) == covered + outer


def test_keyed_md5_has_the_key_on_both_sides() -> None:
    covered = REQUEST + bytes.fromhex("2214000003e8")
    made = authentication.append_authentication(REQUEST, AuthenticationKind.FOREIGN_HOME, 1000, KEY, Algorithm.KEYED_MD5)
    assert made == covered + hashlib.md5(KEY + covered + KEY).digest()


def check(data: bytes, key: bytes, algorithm: Algorithm) -> list[bool]:
    """Verdicts on every authenticator of a message."""
    message = codec.decode(data)
    assert isinstance(message, Request | Reply)
    return [
        authentication.verify(data, offset, extension, key, algorithm)
        for offset, extension in zip(message.offsets, message.extensions, strict=True)
        if isinstance(extension, Authentication | GeneralizedAuthentication)
    ]


@given(st.sampled_from(Algorithm), st.sampled_from(AuthenticationKind), st.integers(0, 0xFFFFFFFF), st.binary(min_size=1))
def test_what_is_appended_verifies(algorithm: Algorithm, kind: AuthenticationKind, spi: int, key: bytes) -> None:
    data = authentication.append_authentication(REQUEST, kind, spi, key, algorithm)
    generalized = authentication.append_generalized_authentication(data, 1, spi, key, algorithm)
    assert check(generalized, key, algorithm) == [True, True]
    assert check(generalized, key + b"x", algorithm) == [False, False]
    other = Algorithm.HMAC_SHA256 if algorithm is not Algorithm.HMAC_SHA256 else Algorithm.HMAC_MD5
    assert check(generalized, key, other) == [False, False]
    message = codec.decode(generalized)
    assert isinstance(message, Request)
    assert codec.encode(message) == generalized
    last = message.extensions[-1]
    assert isinstance(last, GeneralizedAuthentication)
    assert (last.subtype, last.spi, len(last.authenticator)) == (1, spi, authentication.AUTHENTICATOR_OCTETS[algorithm])


@pytest.mark.parametrize("algorithm", Algorithm)
def test_every_changed_bit_is_noticed(algorithm: Algorithm) -> None:
    data = authentication.append_authentication(REQUEST, AuthenticationKind.MOBILE_HOME, 256, KEY, algorithm)
    assert check(data, KEY, algorithm) == [True]
    extension = Authentication(AuthenticationKind.MOBILE_HOME, 256, data[len(REQUEST) + 6 :])
    for place in range(8 * len(data)):
        octets = bytearray(data)
        octets[place // 8] ^= 1 << place % 8
        changed = Authentication(extension.kind, extension.spi, bytes(octets[len(REQUEST) + 6 :]))
        assert not authentication.verify(bytes(octets), len(REQUEST), changed, KEY, algorithm)


def test_what_stands_behind_is_not_covered() -> None:
    data = authentication.append_authentication(REQUEST, AuthenticationKind.MOBILE_HOME, 256, KEY)
    assert check(data + b"\xc8\x00", KEY, Algorithm.HMAC_MD5) == [True]


def test_a_cut_authenticator_is_wrong() -> None:
    data = authentication.append_authentication(REQUEST, AuthenticationKind.MOBILE_HOME, 256, KEY)
    for size in range(16):
        extension = Authentication(AuthenticationKind.MOBILE_HOME, 256, data[-16:][:size])
        assert not authentication.verify(data, len(REQUEST), extension, KEY)


@pytest.mark.parametrize("spi", [-1, 1 << 32])
def test_an_spi_has_32_bits(spi: int) -> None:
    with pytest.raises(WireError, match="SPI"):
        authentication.append_authentication(REQUEST, AuthenticationKind.MOBILE_HOME, spi, KEY)
    with pytest.raises(WireError, match="SPI"):
        authentication.append_generalized_authentication(REQUEST, 1, spi, KEY)
