"""Certificates in files, read again when they change."""

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

CHECK_PERIOD_S = 2.0


class TlsUnusable(ValueError):
    """The files cannot be read, or do not belong together; the message says which, and why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where a process's certificate (with its chain), its private key, and the CAs that it trusts are: PEM."""

    certificate: Path
    key: Path
    ca: Path


class TlsContent(NamedTuple):
    """What is in the files."""

    certificate: bytes
    key: bytes
    ca: bytes


class TlsReader:
    """The newest usable content of the files; looks at them when it is asked, every two seconds at most.

    Files that are half written, or that do not belong together yet, are left for the next look: what was read before
    stays in use. `on_trouble` hears of it, once for each change.

    Raises, when it is made:
        TlsUnusable: there is nothing usable to begin with.
    """

    def __init__(
        self,
        files: TlsFiles,
        *,
        check_period_s: float | None = None,
        on_trouble: Callable[[str], None] = lambda trouble: None,
    ) -> None:
        self.files = files
        self._check_period_s = CHECK_PERIOD_S if check_period_s is None else check_period_s
        self._on_trouble = on_trouble
        self._seen = self._signature()
        self._content = read(files)
        self._checked_at_s = time.monotonic()

    def newest(self) -> TlsContent:
        """What to use now; another object than before if it changed. Safe from any thread."""
        now_s = time.monotonic()
        if now_s - self._checked_at_s < self._check_period_s:
            return self._content
        self._checked_at_s = now_s
        signature = self._signature()
        if signature == self._seen:
            return self._content
        try:
            content = read(self.files)
        except TlsUnusable as trouble:
            self._on_trouble(str(trouble))
        else:
            if content != self._content:
                self._content = content
        self._seen = signature  # of before the reading: what changed while we read is read once more
        return self._content

    def _signature(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(map(file_stamp, (self.files.certificate, self.files.key, self.files.ca)))


def file_stamp(file: Path) -> tuple[int, int, int] | None:
    """Another one whenever the file is another one, or was written; None where there is none."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def read(files: TlsFiles) -> TlsContent:
    """The files' content, checked.

    Raises:
        TlsUnusable: a file cannot be read, is no PEM, or the key is not the certificate's.
    """
    try:
        content = TlsContent(*(file.read_bytes() for file in (files.certificate, files.key, files.ca)))
    except OSError as error:
        raise TlsUnusable(f"{error.filename} cannot be read: {error.strerror}") from None
    check_pair(files.certificate, files.key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.ca.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise TlsUnusable(f"{files.ca} holds no certificate in PEM") from None
    return content


def check_pair(certificate: Path, key: Path) -> None:
    """Sees to it that a key is its certificate's.

    Raises:
        TlsUnusable: it is not, or one of them is no PEM.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError among them
        raise TlsUnusable(
            f"{certificate} and {key} are not a certificate and its private key in PEM: {error.strerror or error}"
        ) from None
