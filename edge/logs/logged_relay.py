"""A relay that tells a capture what it sends. A class of its own, so that other streams do not even ask."""

from typing import Any

from edge.http.answer import Headers, Sent
from edge.logs.capture import Capture
from edge.upstream.relay import Relay


class LoggedRelay(Relay):
    """See `Relay`."""

    def __init__(self, capture: Capture, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._capture = capture

    def commit(self, headers: Headers) -> None:
        if not self.committed:
            self._capture.streams()
        super().commit(headers)

    def write(self, data: bytes) -> None:
        if data and not self.gone:
            self._capture.feed(data)
        super().write(data)

    def finish(self, ending: bytes) -> Sent:
        if ending and not self.gone:
            self._capture.feed(ending)
        return super().finish(ending)
