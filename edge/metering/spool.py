"""The spool folder: one owner, one uuid, one log for each session that usage_svc has not sealed yet.

spool/lock                        held for as long as a process uses the folder
spool/uuid                        who this spool is to usage_svc
spool/<incarnation>/<n>.segment   what was recorded in one session
"""

import fcntl
import os
import time
from pathlib import Path

import uuid_utils

from chassis.faults import FailedPrecondition
from edge.metering.settings import MeteringSettings
from edge.metering.spool_log import SpaceBudget, SpoolLog

_LOCK_TRIES, _LOCK_WAIT_S = 5, 0.05


class Spool:
    """A locked spool folder. Close it to let another process have it."""

    def __init__(self, folder: Path, lock_fd: int, uuid: str, settings: MeteringSettings) -> None:
        self.folder, self.uuid = folder, uuid
        self.logs: dict[int, SpoolLog] = {}
        self._lock_fd, self._settings = lock_fd, settings
        self.budget = SpaceBudget(settings.spool_bytes_max)

    @classmethod
    def open(cls, settings: MeteringSettings) -> "Spool":
        """Locks the folder, made if need be, and reads what former processes left in it.

        Raises:
            FailedPrecondition: another process has it (SPOOL_IN_USE), or its uuid cannot be read (SPOOL_DAMAGED).
            OSError: the folder cannot be used.
        """
        folder = settings.spool_dir
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock_fd = _lock(folder)
        try:
            spool = cls(folder, lock_fd, _uuid(folder), settings)
            for path in sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()):
                spool.logs[int(path.name)] = SpoolLog.recover(
                    path, spool.uuid, int(path.name), spool.budget, settings.segment_bytes
                )
        except BaseException:
            os.close(lock_fd)
            raise
        return spool

    def create_log(self, incarnation: int) -> SpoolLog:
        """A log for a session that was just opened.

        Raises:
            FailedPrecondition: there is one already (SPOOL_AHEAD): usage_svc has forgotten sessions.
        """
        if incarnation in self.logs:
            raise FailedPrecondition(
                "SPOOL_AHEAD",
                f"usage_svc opened session {incarnation} of the spool in {self.folder}, which holds records of an "
                "earlier session with that number: the database of usage_svc was replaced or restored. Move the spool "
                "folder aside to start with a new one, and keep it: it holds usage that may not have been billed",
            )
        log = SpoolLog(
            self.folder / f"{incarnation:08d}", self.uuid, incarnation, self.budget, self._settings.segment_bytes
        )
        self.logs[incarnation] = log
        _sync_folder(self.folder)
        return log

    def remove_log(self, log: SpoolLog) -> None:
        """Deletes the log of a session that is sealed."""
        del self.logs[log.incarnation]
        log.close(remove=True)

    def close(self) -> None:
        """Leaves everything on disk for the next process."""
        for log in self.logs.values():
            log.close(remove=False)
        self.logs.clear()
        os.close(self._lock_fd)


def is_abandoned(folder: Path) -> bool:
    """Whether a spool folder holds sessions that are not sealed, and no process has it."""
    if not any(path.is_dir() and path.name.isdecimal() for path in folder.iterdir()):
        return False
    try:
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False  # another user's, or just being removed
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _lock(folder: Path) -> int:
    fd = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    if not _locked(fd):
        owner = os.pread(fd, 100, 0).decode(errors="replace").strip()
        os.close(fd)
        raise FailedPrecondition(
            "SPOOL_IN_USE",
            f"the spool folder {folder} is in use by process {owner or 'unknown'}: give each edge process a "
            "data folder of its own, or wait for the other one to end",
        )
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _locked(fd: int) -> bool:
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_WAIT_S)  # another edge may only be looking whether this one is abandoned
        else:
            return True
    return False


def _uuid(folder: Path) -> str:
    path = folder / "uuid"
    if not path.exists():
        unfinished = folder / "uuid.unfinished"
        with unfinished.open("w") as file:
            file.write(f"{uuid_utils.uuid7()}\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_folder(folder)
    text = path.read_text().strip()
    try:
        return str(uuid_utils.UUID(text))
    except ValueError:
        raise FailedPrecondition(
            "SPOOL_DAMAGED",
            f"{path} does not hold a UUID: restore it, or move the folder aside to start with a new spool",
        ) from None


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
