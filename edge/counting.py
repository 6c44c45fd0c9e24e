"""Counters and histograms that one thread writes: the event loop's.

prometheus_client's own take a lock at every step, and a request takes some twenty steps: more than all its metering.
These give the same output, and are read by the scraping thread as they are.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

INF = float("inf")


class Count:
    """One counter of one combination of label values."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        """`amount` is never negative."""
        self.value += amount


class Buckets:
    """One histogram of one combination of label values."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value into the first bucket whose bound is not below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class LoopCounter(Collector):
    """A counter with labels."""

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str], registry: CollectorRegistry = REGISTRY
    ) -> None:
        self.name, self.help_text, self.label_names, self.kind = name, help_text, tuple(labels), "counter"
        self._counts: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The counter of one combination; keep it where it is needed often."""
        return self._counts.setdefault(values, Count())

    def describe(self) -> Iterable[Metric]:
        return [CounterMetricFamily(self.name, self.help_text, labels=self.label_names)]

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self.name, self.help_text, labels=self.label_names)
        for values, count in list(self._counts.items()):
            family.add_metric(values, count.value)
        return [family]


class LoopHistogram(Collector):
    """A histogram with labels."""

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str],
        buckets: Sequence[float],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self.name, self.help_text, self.label_names, self.kind = name, help_text, tuple(labels), "histogram"
        self._bounds = tuple(buckets)
        self._buckets: dict[tuple[str, ...], Buckets] = {}
        registry.register(self)

    def labels(self, *values: str) -> Buckets:
        """The histogram of one combination; keep it where it is needed often."""
        return self._buckets.setdefault(values, Buckets(self._bounds))

    def describe(self) -> Iterable[Metric]:
        return [HistogramMetricFamily(self.name, self.help_text, labels=self.label_names)]

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self.name, self.help_text, labels=self.label_names)
        for values, found in list(self._buckets.items()):
            total, cumulative = 0, []
            for bound, count in zip((*self._bounds, INF), list(found.counts), strict=True):
                total += count
                cumulative.append(("+Inf" if bound == INF else repr(bound), total))
            family.add_metric(values, cumulative, found.sum)
        return [family]
