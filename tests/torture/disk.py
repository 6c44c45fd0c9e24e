"""A disk that loses power: what was not synced is gone, or there in part.

While an edge runs, every sync of its spool is followed by a copy of what it covered, in a folder beside the spool.
`cut_power` makes the spool what a disk would hold after a power cut: of each folder the files that it had when it was
last synced, of each file what it had then and perhaps some of what was written since, torn at any sector.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge.metering import group_commit, spool, spool_log
from edge.metering.disk_sync import DiskSync, OnDone, open_disk_sync

SECTOR_BYTES = 512
_ENTRIES = "entries.json"  # of a folder's copy: the names that the folder had when it was synced

Patch = Callable[[Any, str, Any], None]  # setattr, or a test's monkeypatch


def copy_what_is_synced(patch: Patch) -> None:
    """Has the meters that this process opens from now on keep such copies."""
    sync, sync_folder = spool_log._sync, spool._sync_folder

    def sync_and_copy(files: Sequence[int]) -> None:
        copies = [_copy_of(fd) for fd in files]
        sync(files)
        _keep(copies)

    def sync_folder_and_copy(folder: Path) -> None:
        sync_folder(folder)
        _keep([_copy_of_folder(folder)])

    patch(group_commit, "open_disk_sync", _CopyingSync)
    patch(spool_log, "_sync", sync_and_copy)
    patch(spool, "_sync_folder", sync_folder_and_copy)


def cut_power(spool_dir: Path, dice: random.Random | None) -> None:
    """Leaves in a dead edge's spool what its disk would have; without dice nothing that was not synced."""
    copies = copies_of(spool_dir)
    sessions = [name for name in _names(copies) if name.isdecimal()]
    for name in sessions:
        folder, copy = spool_dir / name, copies / name
        survivors = {}
        is_torn = dice is None
        for file in sorted(each for each in _names(copy) if each.endswith(".segment")):
            synced = _content(copy / file)
            written = _content(folder / file) or synced
            survivors[file] = synced if dice is None or is_torn else _torn(synced, written, dice)
            is_torn = is_torn or survivors[file] != written  # what is written later is not there either
        for each in (folder, copy):
            shutil.rmtree(each, ignore_errors=True)
            each.mkdir()
            for file, data in survivors.items():
                (each / file).write_bytes(data)
        (copy / _ENTRIES).write_text(json.dumps(sorted(survivors)))
    for folder in spool_dir.iterdir():
        if folder.name.isdecimal() and folder.name not in sessions:
            shutil.rmtree(folder)  # made, and its name was not synced yet


def copies_of(spool_dir: Path) -> Path:
    """The folder with the copies."""
    return spool_dir.with_name(f"{spool_dir.name}.synced")


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _torn(synced: bytes, written: bytes, dice: random.Random) -> bytes:
    """What was synced, and what was written since up to a sector."""
    sectors = range(0, len(written), SECTOR_BYTES)
    unsynced = [at for at in sectors if written[at : at + SECTOR_BYTES] != synced[at : at + SECTOR_BYTES]]
    end = dice.choice([*unsynced, len(written)])
    return written[:end] + synced[end:]


class _CopyingSync:
    """Copies what a round covered when it is done, and before anybody is told."""

    def __init__(self, on_done: OnDone) -> None:
        self._on_done = on_done
        self._copies: list[tuple[Path, bytes]] = []
        self._inner: DiskSync = open_disk_sync(self._synced)

    def start(self, files: Sequence[int]) -> None:
        self._copies = [_copy_of(fd) for fd in files]
        self._inner.start(files)

    def close(self) -> None:
        self._inner.close()

    def _synced(self, failure: OSError | None) -> None:
        _keep(self._copies)
        self._on_done(failure)


def _copy_of(fd: int) -> tuple[Path, bytes]:
    """Where the copy of an open file or folder goes, and what it has now."""
    path = Path(os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)"))
    if path.is_dir():
        return _copy_of_folder(path)
    return copies_of(path.parent.parent) / path.parent.name / path.name, os.pread(fd, os.fstat(fd).st_size, 0)


def _copy_of_folder(folder: Path) -> tuple[Path, bytes]:
    names = json.dumps(sorted(each.name for each in folder.iterdir()) if folder.exists() else []).encode()
    if folder.name.isdecimal():
        return copies_of(folder.parent) / folder.name / _ENTRIES, names
    return copies_of(folder) / _ENTRIES, names


def _keep(copies: Sequence[tuple[Path, bytes]]) -> None:
    for path, data in copies:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.unfinished")
        unfinished.write_bytes(data)
        unfinished.replace(path)  # whole or not at all, when this process is killed


def _names(copy: Path) -> list[str]:
    entries = copy / _ENTRIES
    names: list[str] = json.loads(entries.read_text()) if entries.exists() else []
    return names
