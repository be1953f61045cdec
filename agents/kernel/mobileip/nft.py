"""nftables: texts carried out as one transaction each, by its library (a fraction of a millisecond) or else by the program."""

import ctypes
import subprocess
from functools import cache
from typing import Any, Final

_LIBRARIES: Final = ("libnftables.so.1", "libnftables.so")
_TIMEOUT_S: Final = 30


class NftError(OSError):
    """nft refused; one line with the reason."""

    def __str__(self) -> str:
        return self.strerror or ""


class _Library:
    """A context of libnftables(3); messages are kept in buffers."""

    def __init__(self, library: Any) -> None:
        self._library = library
        library.nft_ctx_new.restype = ctypes.c_void_p
        for name in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
            getattr(library, name).restype = ctypes.c_char_p
        context = library.nft_ctx_new(0)
        if not context:
            raise OSError("no context")
        self._context = ctypes.c_void_p(context)
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_buffer_output(self._context)

    def run(self, text: str) -> str:
        failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
        errors = self._library.nft_ctx_get_error_buffer(self._context) or b""
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        if failed:
            raise NftError(1, f"nft: {' '.join(errors.decode(errors='replace').split())[:300]}")
        return output.decode()


@cache
def _library() -> _Library | None:
    for name in _LIBRARIES:
        try:
            return _Library(ctypes.CDLL(name))
        except (OSError, AttributeError):
            continue
    return None


def nft(text: str) -> str:
    """Have a text carried out as one transaction; what it prints. Raises NftError."""
    library = _library()
    return library.run(text) if library is not None else by_program(text)


def by_program(text: str) -> str:
    """The same by the program nft. Raises NftError."""
    try:
        done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise NftError(0, "unsupported: neither libnftables nor the program nft is installed (package nftables)") from None
    except subprocess.TimeoutExpired:
        raise NftError(0, f"nft does not end within {_TIMEOUT_S} s") from None
    if done.returncode:
        raise NftError(done.returncode, f"nft: {' '.join(done.stderr.split())[:300]}")
    return done.stdout
