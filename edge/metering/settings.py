"""What metering can be told. The edge's settings fill it; every limit has its name here."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from edge.metering.spool_format import FRAME_BYTES_MAX


class Durability(Enum):
    """When `Meter.finish` says that an event is safe."""

    GROUP = "group"  # after a sync that all events of one round share: against kill and against power loss
    INTERVAL = "interval"  # once the system has it: against kill always; a power cut can lose the last sync_interval_s


@dataclass(frozen=True, slots=True)
class MeteringSettings:
    """Durations in seconds, sizes in bytes, money in nano-USD.

    Raises:
        ValueError: a value that cannot work; names it.
    """

    spool_dir: Path
    edge_name: str  # for people, in usage_svc's list of sessions
    spool_bytes_max: int = 1024**3  # when full, admissions end (SPOOL_FULL); space of open requests is inside
    segment_bytes: int = 8 * 1024**2
    durability: Durability = Durability.GROUP
    sync_interval_s: float = 0.2  # interval mode only
    ship_linger_s: float = 1.0  # how long a record waits for company
    ship_batch_max: int = 1000
    rpc_timeout_s: float = 5.0
    acquire_timeout_s: float = 2.0  # requests wait for this call
    acquire_calls_max: int = 4  # at once; each carries up to 1000 accounts
    session_margin_s: float = 5.0  # admission ends this long before usage_svc may call the session lost
    heartbeat_s_max: float = 5.0
    lease_window_s: float = 120.0  # leases are sized by the peak of open holds within it, and idle after it
    outage_s: float = 0.0  # leases are large enough to go on without usage_svc for this long; 0: as it comes
    leases_max: int = 10_000
    refusal_memory_s: float = 1.0  # a refused account causes no further call for this long
    held_wait_s: float = 0.2  # how long a request waits for funds that are merely held
    drain_s: float = 10.0  # at the end: how long to go on shipping

    @property
    def spend_factor(self) -> float:
        """How many times the spend of a window a lease keeps. What it knows may be of half a window only, and it is
        refilled when half of it is gone: hence four times.
        """
        return max(1.0, 4 * self.outage_s / self.lease_window_s)

    def __post_init__(self) -> None:
        if self.segment_bytes < 4 * FRAME_BYTES_MAX:
            raise ValueError(f"segment_bytes is {self.segment_bytes}: at least {4 * FRAME_BYTES_MAX}")
        if self.spool_bytes_max < 2 * self.segment_bytes:
            raise ValueError(
                f"spool_bytes_max is {self.spool_bytes_max}: at least two segments, {2 * self.segment_bytes}"
            )
        if not 1 <= self.ship_batch_max <= 1000:
            raise ValueError(f"ship_batch_max is {self.ship_batch_max}: 1 to 1000")
        if not 0 < self.refusal_memory_s <= 1:
            raise ValueError(f"refusal_memory_s is {self.refusal_memory_s}: more than 0, at most 1")
