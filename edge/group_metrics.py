"""The metrics of several processes as if they were one.

Counters and histograms are added up, and what a process counted until it died stays in the sum: a counter that goes
down looks to Prometheus like one that began anew, and its whole value like news. Gauges are added up too, but for ages
(the oldest counts) and for what is the same in all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

# By the end of a gauge's name; all others are added up.
_GAUGE_RULES: Sequence[tuple[tuple[str, ...], Callable[[Iterable[float]], float]]] = (
    (("_age_seconds", "_lag_seconds", "_until_seconds", "_info", "_credentials_missing"), max),
    (("_created", "_start_time_seconds", "_number", "_ready"), min),
)
_COUNTING = {"counter", "histogram", "summary"}
_ENDINGS = ("_total", "_bucket", "_sum", "_count", "")  # of such a family's samples

# (name of the sample, its labels in order)
_Key = tuple[str, tuple[tuple[str, str], ...]]


class Tally:
    """What one place in the group has counted: its present process, and those that died before it.

    Written by the event loop (`began`, `died`) and by the thread of a scrape (`update`).
    """

    def __init__(self) -> None:
        self.port = 0  # where its process serves metrics; 0: it has none
        self._lock = Lock()
        self._families: dict[str, Metric] = {}
        self._former: dict[_Key, float] = {}

    def began(self, port: int) -> None:
        """A process serves its metrics there."""
        self.port = port

    def update(self, port: int, families: Iterable[Metric]) -> bool:
        """What the process at this port says; False if it has died meanwhile, and was counted."""
        said = {family.name: family for family in families}
        with self._lock:
            if self.port != port:
                return False
            self._families = said
            return True

    def died(self) -> None:
        """The process is gone: what it counted stays, what it measured goes."""
        with self._lock:
            self.port = 0
            counting = [family for family in self._families.values() if family.type in _COUNTING]
            for family in counting:
                for sample in family.samples:
                    self._former[_key(sample)] = self._former.get(_key(sample), 0.0) + sample.value
            self._families = {
                family.name: Metric(family.name, family.documentation, family.type) for family in counting
            }

    def read(self) -> tuple[Mapping[str, Metric], Mapping[_Key, float]]:
        """The families of the present process, and what former ones counted."""
        with self._lock:
            return self._families, dict(self._former)


def summed(tallies: Sequence[Tally]) -> list[Metric]:
    """One family for each that any process has, its samples in the order in which they are first met."""
    heads: dict[str, Metric] = {}
    values: dict[str, dict[_Key, list[float]]] = {}
    read = [tally.read() for tally in tallies]
    for families, _ in read:
        for name, family in families.items():
            heads.setdefault(name, family)
            met = values.setdefault(name, {})
            for sample in family.samples:
                met.setdefault(_key(sample), []).append(sample.value)
    family_of = {
        f"{head.name}{ending}": head.name for head in heads.values() if head.type in _COUNTING for ending in _ENDINGS
    }
    for _, former in read:
        for key, value in former.items():
            values[family_of[key[0]]].setdefault(key, []).append(value)
    return [_family(heads[name], values[name]) for name in heads]


def _family(head: Metric, values: Mapping[_Key, Sequence[float]]) -> Metric:
    family = Metric(head.name, head.documentation, head.type)
    rule = sum if head.type in _COUNTING else _gauge_rule(head.name)
    for (name, labels), each in values.items():
        family.add_sample(name, dict(labels), rule(each))
    return family


def _gauge_rule(name: str) -> Callable[[Iterable[float]], float]:
    for endings, rule in _GAUGE_RULES:
        if name.endswith(endings):
            return rule
    return sum


def _key(sample: Sample) -> _Key:
    return sample.name, tuple(sample.labels.items())
