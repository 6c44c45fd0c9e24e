"""The numbered history of changes, and where in it a watcher stands. Pure.

Revisions of one database rise by exactly one with each change, and in the order in which the changes were committed
(store.py), so a hole in what was read means that history was dropped there. A database begins to count at the
milliseconds of the moment at which it was made: a reader that followed another one, or none, is recognised by a
revision outside this history, and told to forget everything.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One key (`key_id`) or every key of an account (`account_id`) changed; the other one is None."""

    revision: int
    key_id: str | None
    account_id: str | None


@dataclass(frozen=True, slots=True)
class History:
    """What a database answered when asked for the changes after a revision.

    `revision` is the newest at that time or somewhat earlier; `changes` may go beyond it, and is cut at a limit.
    """

    revision: int
    changes: Sequence[KeyChange]


def is_complete(after_revision: int, history: History) -> bool:
    """Whether nothing is missing between a reader's revision and what was read: if not, the reader must start anew."""
    if history.changes:
        return history.changes[0].revision == after_revision + 1
    return history.revision == after_revision


class Gap(Enum):
    """Why recent changes cannot answer."""

    TOO_OLD = auto()  # ask the database
    FROM_ELSEWHERE = auto()  # the reader is ahead of this history: it was another one


class RecentChanges:
    """The newest part of the history, in memory, for every watcher of a process: all read it, each at its own pace.

    A watcher holds a revision and nothing else, so a slow one costs no memory; one that falls out of this window reads
    on in the database.
    """

    def __init__(self, revision: int, count_max: int) -> None:
        self._count_max = count_max
        self.restart(revision)

    def restart(self, revision: int) -> None:
        """Begins anew at a revision of the database, with nothing before it."""
        self.revision = revision
        self._changes: list[KeyChange] = []
        self._start_revision = revision

    def extend(self, changes: Sequence[KeyChange]) -> None:
        """Adds the changes that follow `revision` without a hole."""
        assert changes[0].revision == self.revision + 1, "a hole: restart instead"
        self._changes.extend(changes)
        self.revision = changes[-1].revision
        excess = len(self._changes) - self._count_max
        if excess > 0:
            self._start_revision = self._changes[excess - 1].revision
            del self._changes[:excess]

    def after(self, revision: int, count_max: int) -> Sequence[KeyChange] | Gap:
        """At most `count_max` changes that follow a watcher's revision; empty where there are none yet."""
        if revision > self.revision:
            return Gap.FROM_ELSEWHERE
        if revision < self._start_revision:
            return Gap.TOO_OLD
        first = bisect_right(self._changes, revision, key=_revision_of)
        return self._changes[first : first + count_max]


def _revision_of(change: KeyChange) -> int:
    return change.revision
