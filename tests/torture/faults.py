"""What is broken when, for how long: decided by the seed alone, before anything starts. Pure."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Ways to break a part."""

    KILL = "kill"  # SIGKILL, started again after a while
    POWER = "power cut"  # an edge's machine: killed, and its disk has lost what was not synced
    DOUBLE = "double"  # a second process is started on the data folder of an edge that lives
    TERMINATE = "terminate"  # SIGTERM under load, started again when it has ended
    PAUSE = "pause"  # SIGSTOP, later SIGCONT
    CUT = "cut"  # a link's connections are reset, and new ones refused
    HANG = "hang"  # a link swallows what is sent, and delivers it when it is mended


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `target` is a process (edge0, usage, postgres, ...) or a link (edge0-usage, usage-postgres)."""

    at_s: float
    kind: Kind
    target: str
    for_s: float

    def __str__(self) -> str:
        return f"{self.kind} {self.target} for {self.for_s:.1f} s"


@dataclass(frozen=True, slots=True)
class _Way:
    kind: Kind
    target: str
    weight: int
    for_s: tuple[float, float]


EDGES = ("edge0", "edge1", "edge2")
SERVICES = ("auth", "catalog", "usage")
# A fault begins about this often; each leaves its target alone for a while afterwards, so that life goes on in between.
_GAP_S = 2.5
_RECOVERY_S = 4.0
_WARM_UP_S = 3.0


def ways(*, with_postgres: bool) -> Sequence[_Way]:
    """Everything that may happen, and how likely. Some last longer than a session may be silent: edges get fenced."""
    found = []
    for edge in EDGES:
        found += [
            _Way(Kind.KILL, edge, 6, (0.1, 1.5)),
            _Way(Kind.POWER, edge, 4, (0.1, 1.5)),
            _Way(Kind.DOUBLE, edge, 1, (0.1, 0.1)),
            _Way(Kind.TERMINATE, edge, 3, (0.1, 0.5)),
            _Way(Kind.PAUSE, edge, 3, (0.3, 3.0)),
            _Way(Kind.PAUSE, edge, 1, (9.0, 13.0)),
            _Way(Kind.CUT, f"{edge}-usage", 3, (0.5, 5.0)),
            _Way(Kind.CUT, f"{edge}-usage", 1, (9.0, 13.0)),
            _Way(Kind.HANG, f"{edge}-usage", 3, (0.5, 5.0)),
            _Way(Kind.HANG, f"{edge}-usage", 1, (9.0, 13.0)),
        ]
    found += [
        _Way(Kind.KILL, "usage", 8, (0.1, 1.5)),
        _Way(Kind.TERMINATE, "usage", 3, (0.1, 0.5)),
        _Way(Kind.PAUSE, "usage", 4, (0.3, 3.0)),
        _Way(Kind.PAUSE, "usage", 1, (9.0, 12.0)),
    ]
    for service in ("auth", "catalog"):
        found += [
            _Way(Kind.KILL, service, 2, (0.1, 4.0)),
            _Way(Kind.TERMINATE, service, 1, (0.1, 1.0)),
            _Way(Kind.PAUSE, service, 1, (0.3, 5.0)),
        ]
    if with_postgres:
        found += [
            _Way(Kind.KILL, "postgres", 6, (0.1, 1.5)),
            _Way(Kind.PAUSE, "postgres", 3, (0.3, 3.0)),
            _Way(Kind.CUT, "usage-postgres", 4, (0.3, 4.0)),
            _Way(Kind.HANG, "usage-postgres", 4, (0.3, 5.0)),
        ]
    return found


def schedule(seed: int, duration_s: float, *, with_postgres: bool) -> list[Fault]:
    """The faults of a run, in order. They overlap, but never on the same target."""
    dice = random.Random(f"faults {seed}")
    possible = ways(with_postgres=with_postgres)
    busy_until: dict[str, float] = {}
    faults: list[Fault] = []
    now = _WARM_UP_S
    while now < duration_s - 2:
        free = [way for way in possible if busy_until.get(way.target, 0) <= now]
        if free:
            way = dice.choices(free, [each.weight for each in free])[0]
            for_s = round(min(dice.uniform(*way.for_s), duration_s - now), 2)
            faults.append(Fault(round(now, 2), way.kind, way.target, for_s))
            busy_until[way.target] = now + for_s + _RECOVERY_S
        now += dice.expovariate(1 / _GAP_S)
    return faults


def counts(faults: Sequence[Fault]) -> "Counter[str]":
    """How many of each kind, by what they hit."""
    return Counter(f"{each.kind} {_group(each.target)}" for each in faults)


def _group(target: str) -> str:
    return target.replace("0", "").replace("1", "").replace("2", "") if target.startswith("edge") else target
