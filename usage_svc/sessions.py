"""The life of a session, and its cursor: which records of a batch are still to be posted."""

from dataclasses import dataclass
from enum import IntEnum


class SessionState(IntEnum):
    """ALIVE -> LOST -> DRAINED or FORCED, never back; the numbers are the contract's."""

    ALIVE = 1
    LOST = 2
    DRAINED = 3
    FORCED = 4


@dataclass(frozen=True, slots=True)
class SessionId:
    """One incarnation of one spool."""

    spool_uuid: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Session:
    """Where a session stands. `next_seq` is the first record that is not here yet."""

    session_id: SessionId
    state: SessionState
    next_seq: int
    released_nanousd: int = 0


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session for people. Times are microseconds since 1970, by the database's clock."""

    session_id: SessionId
    edge_name: str
    state: SessionState
    next_seq: int
    create_time_us: int
    heartbeat_time_us: int
    reserved_nanousd: int


@dataclass(frozen=True, slots=True)
class Opening:
    """A new incarnation, and the earlier ones of its spool that are not sealed."""

    session: Session
    undrained: tuple[Session, ...]


def records_to_skip(next_seq: int, first_seq: int, count: int) -> int | None:
    """How many records of a batch were posted before; `count` if all were. None for a gap: the sender must rewind."""
    if first_seq > next_seq:
        return None
    return min(next_seq - first_seq, count)
