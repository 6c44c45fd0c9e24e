"""Where each process of a group keeps its spool and catalog, and what a larger group left behind."""

import re
from collections.abc import Sequence
from pathlib import Path

_FOLDER = re.compile(r"process-([1-9]\d{0,3})")


def folder_of(data_dir: Path, number: int) -> Path:
    """The first process has the data folder itself, as a process alone has: so a group may grow and shrink."""
    return data_dir / f"process-{number}" if number else data_dir


def left_behind(data_dir: Path, processes: int) -> Sequence[Path]:
    """Folders of processes that there are no more, whose spools still hold usage, or logs."""
    if not data_dir.is_dir():
        return ()
    numbered = [(int(found[1]), path) for path in data_dir.iterdir() if (found := _FOLDER.fullmatch(path.name))]
    return [
        path for number, path in sorted(numbered) if number >= processes and (holds_usage(path) or holds_logs(path))
    ]


def holds_usage(folder: Path) -> bool:
    """Whether a spool has a session that was not sealed."""
    spool = folder / "spool"
    return spool.is_dir() and any(path.name.isdecimal() for path in spool.iterdir())


def holds_logs(folder: Path) -> bool:
    """Whether there are captured inputs and outputs that usage_svc does not have."""
    return any((folder / "logs").glob("*.logs"))
