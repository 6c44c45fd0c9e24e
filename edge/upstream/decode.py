"""Decoders for upstreams that compress though identity was asked for: usage is read, and clients get plain bytes."""

import zlib
from collections.abc import Callable
from typing import Any

import brotli
import zstandard

Decode = Callable[[bytes], bytes]


class EncodingUnknown(Exception):
    """A Content-Encoding that nobody asked for and that cannot be read."""


class BrokenEncoding(Exception):
    """The body is not what its Content-Encoding says."""


def decoder(content_encoding: str) -> Decode | None:
    """An incremental decoder for one body; None for identity.

    Raises:
        EncodingUnknown: an encoding, or a chain of them, that is not offered.
    """
    encoding = content_encoding.strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding in ("gzip", "x-gzip"):
        return _guarded(zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress)
    if encoding == "deflate":
        return _guarded(_Deflate().decompress)
    if encoding == "br":
        return _guarded(brotli.Decompressor().process)
    if encoding == "zstd":
        return _guarded(zstandard.ZstdDecompressor().decompressobj().decompress)
    raise EncodingUnknown(encoding)


def _guarded(decode: Callable[[bytes], Any]) -> Decode:
    def guarded(data: bytes) -> bytes:
        try:
            return bytes(decode(data))
        except (zlib.error, brotli.error, zstandard.ZstdError) as error:
            raise BrokenEncoding(str(error)) from None

    return guarded


class _Deflate:
    """`deflate` is zlib by the book (RFC 9110, 8.4.1.2) and raw in the wild: the first byte tells."""

    def __init__(self) -> None:
        self._inner: Any = None

    def decompress(self, data: bytes) -> bytes:
        if self._inner is None:
            if not data:
                return b""
            is_zlib = data[0] & 0x0F == 8
            self._inner = zlib.decompressobj() if is_zlib else zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        decoded: bytes = self._inner.decompress(data)
        return decoded
