"""HTTP/1.1 requests as bytes: cut from a connection's buffer without interpreting what they carry. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RawRequest:
    """One request; header names and values as received."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def wants_close(self) -> bool:
        """Whether the client said that it will not reuse the connection."""
        return self.version == "HTTP/1.0" or "close" in _values(self.headers, "connection")


class RequestCutter:
    """feed() takes what arrives; next() gives the next complete request, or None."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0  # no head ends before this

    @property
    def empty(self) -> bool:
        """Whether nothing has arrived of a next request."""
        return not self._buffer

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def wants_continue(self) -> bool:
        """Whether a head has arrived that waits for `100 Continue`, and nothing of its body has."""
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0 or len(self._buffer) > head_end + 4:
            return False
        return "100-continue" in _values(_head(bytes(self._buffer[:head_end]))[3], "expect")

    def next(self) -> RawRequest | None:
        """Cuts off one request.

        Raises:
            ValueError: what arrived is not HTTP.
        """
        head_end = self._buffer.find(b"\r\n\r\n", max(self._scanned - 3, 0))
        if head_end < 0:
            self._scanned = len(self._buffer)
            return None
        self._scanned = head_end
        method, target, version, headers = _head(bytes(self._buffer[:head_end]))
        start = head_end + 4
        if "chunked" in _values(headers, "transfer-encoding"):
            cut = _chunked_body(self._buffer, start)
        else:
            end = start + int(next(iter(_values(headers, "content-length")), "0"))
            cut = (bytes(self._buffer[start:end]), end) if len(self._buffer) >= end else None
        if cut is None:
            return None
        del self._buffer[: cut[1]]
        self._scanned = 0
        return RawRequest(method, target, version, headers, cut[0])


def _head(text: bytes) -> tuple[str, str, str, list[tuple[str, str]]]:
    line, *lines = text.decode("latin-1").split("\r\n")
    method, target, version = line.split(" ")
    pairs = (entry.split(":", 1) for entry in lines)
    return method, target, version, [(name, value.strip(" \t")) for name, value in pairs]


def _values(headers: list[tuple[str, str]], name: str) -> list[str]:
    return [item.strip().lower() for key, value in headers if key.lower() == name for item in value.split(",")]


def _chunked_body(buffer: bytearray, start: int) -> tuple[bytes, int] | None:
    """The body and where it ends; None while it is incomplete. Trailers are dropped."""
    body = bytearray()
    while True:
        line_end = buffer.find(b"\r\n", start)
        if line_end < 0:
            return None
        size = int(bytes(buffer[start:line_end]).split(b";")[0], 16)
        start = line_end + 2
        if size == 0:
            end = buffer.find(b"\r\n\r\n", line_end)
            return (bytes(body), end + 4) if end >= 0 else None
        if len(buffer) < start + size + 2:
            return None
        body += buffer[start : start + size]
        start += size + 2
