"""What `tollgate up` runs in a data folder, and how other commands find it."""

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from tollgate.failure import CommandFailed

_LOCK = "lock"
RUN_FILE = "run.json"


@dataclass(frozen=True, slots=True)
class Run:
    """One running stack. Addresses are host:port; `base_url` ends in /v1."""

    pid: int
    base_url: str
    auth_address: str
    catalog_address: str
    usage_address: str
    metrics_urls: dict[str, str]
    child_pids: dict[str, int]


class FolderLock:
    """Held for as long as anything of a stack lives: the children inherit it, and keep it if their parent is killed.

    Raises:
        CommandFailed: another stack has the folder (ALREADY_RUNNING).
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def __enter__(self) -> "FolderLock":
        self.fd = os.open(self._data_dir / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.fd)
            raise CommandFailed("ALREADY_RUNNING", _who_has(self._data_dir)) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)


def _who_has(data_dir: Path) -> str:
    run = _read(data_dir)
    if run is None:
        return f"a stack on {data_dir} is just starting or stopping: try again in a moment, or use another --data-dir"
    if not _exists(run.pid):
        return f"what is left of a killed stack on {data_dir} still finishes its requests: try again in half a minute"
    return (
        f"a stack already runs on {data_dir}, at {run.base_url} (process {run.pid}): stop that one first, "
        "or use another --data-dir"
    )


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, and there
    return True


def write_run(file: Path, run: Run) -> None:
    """Tells other programs where the stack is; written whole or not at all."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.write_text(json.dumps(asdict(run), indent=2) + "\n")
    unfinished.replace(file)


def forget_run(data_dir: Path) -> None:
    """The stack is no more."""
    (data_dir / RUN_FILE).unlink(missing_ok=True)


def running(data_dir: Path) -> Run | None:
    """The stack that runs on a folder; None where nothing does, also after a crash that left its file behind."""
    run = _read(data_dir)
    if run is None:
        return None
    try:
        fd = os.open(data_dir / _LOCK, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return run
    else:
        return None  # nobody holds the lock
    finally:
        os.close(fd)


def _read(data_dir: Path) -> Run | None:
    try:
        return Run(**json.loads((data_dir / RUN_FILE).read_text()))
    except (OSError, ValueError, TypeError):  # not there; cut off; of another version
        return None
