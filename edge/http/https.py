"""HTTPS at the edge itself: a certificate in files, replaced while everything runs."""

import asyncio
import ssl
from pathlib import Path

from chassis.log import logger
from protos.client import TlsUnusable, check_pair, file_stamp

_log = logger(__name__)

CHECK_PERIOD_S = 5.0


class Https:
    """`context` is for the listener; run `follow` beside it. Connections that are open keep what they began with.

    Raises:
        TlsUnusable: the files cannot be read, or do not belong together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._seen = self._stamps()
        self._load()

    async def follow(self) -> None:
        """Looks at the files every few seconds; runs as long as the process."""
        while True:
            await asyncio.sleep(CHECK_PERIOD_S)
            self.look()

    def look(self) -> None:
        """Takes files that have changed, if they belong together."""
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self._load()
        except TlsUnusable as trouble:
            _log.error("certificate not replaced", reason=str(trouble))
        else:
            _log.info("certificate replaced", file=str(self._certificate))

    def _load(self) -> None:
        check_pair(self._certificate, self._key)  # in a context of its own: a failure leaves ours as it is
        self.context.load_cert_chain(self._certificate, self._key)

    def _stamps(self) -> tuple[object, object]:
        return file_stamp(self._certificate), file_stamp(self._key)
