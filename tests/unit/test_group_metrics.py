"""The metrics of several edge processes as if they were one."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from edge.group_metrics import Tally, summed


def page(requests: dict[str, int], streams: float, age_s: float, durations: list[float]) -> list[Metric]:
    """What one process serves at /metrics."""
    registry = CollectorRegistry()
    counter = Counter("requests_total", "Requests.", ["status"], registry=registry)
    for status, count in requests.items():
        counter.labels(status).inc(count)
    Gauge("open_streams", "Streams.", registry=registry).set(streams)
    Gauge("catalog_age_seconds", "Age.", registry=registry).set(age_s)
    Gauge("catalog_number", "Number.", registry=registry).set(age_s)
    histogram = Histogram("duration_seconds", "Durations.", buckets=(1.0, 2.0), registry=registry)
    for duration in durations:
        histogram.observe(duration)
    return list(text_string_to_metric_families(generate_latest(registry).decode()))


def value(families: list[Metric], name: str, **labels: str) -> float | None:
    found = [
        sample.value
        for family in families
        for sample in family.samples
        if (sample.name, sample.labels) == (name, labels)
    ]
    assert len(found) <= 1, f"{name} is there {len(found)} times"
    return found[0] if found else None


def tally(port: int, families: list[Metric]) -> Tally:
    made = Tally()
    made.began(port)
    assert made.update(port, families)
    return made


def test_counters_histograms_and_amounts_are_added_up_and_ages_are_not() -> None:
    one = tally(1, page({"200": 5, "500": 1}, streams=3, age_s=7, durations=[0.5, 1.5]))
    other = tally(2, page({"200": 2}, streams=4, age_s=2, durations=[0.1]))
    families = summed([one, other, Tally()])
    assert value(families, "requests_total", status="200") == 7
    assert value(families, "requests_total", status="500") == 1
    assert value(families, "open_streams") == 7
    assert value(families, "catalog_age_seconds") == 7
    assert value(families, "catalog_number") == 2
    assert value(families, "duration_seconds_bucket", le="1.0") == 2
    assert value(families, "duration_seconds_count") == 3
    assert value(families, "duration_seconds_sum") == 2.1


def test_what_a_process_counted_stays_when_it_dies_and_what_it_measured_goes() -> None:
    one = tally(1, page({"200": 5}, streams=3, age_s=7, durations=[0.5]))
    other = tally(2, page({"200": 2}, streams=4, age_s=2, durations=[]))
    one.died()
    assert not one.update(1, page({"200": 9}, streams=9, age_s=9, durations=[])), "it has been counted"
    families = summed([one, other])
    assert value(families, "requests_total", status="200") == 7
    assert value(families, "open_streams") == 4
    assert value(families, "duration_seconds_count") == 1
    one.began(3)
    assert one.update(3, page({"200": 1, "429": 1}, streams=1, age_s=1, durations=[0.5]))
    one.died()
    families = summed([one, other])
    assert value(families, "requests_total", status="200") == 8
    assert value(families, "requests_total", status="429") == 1
    assert value(families, "duration_seconds_count") == 2
    assert generate_latest(_Fixed(families))


def test_the_sum_of_nobody_is_nothing() -> None:
    assert summed([]) == summed([Tally()]) == []


class _Fixed(CollectorRegistry):
    """A registry that serves what it was given."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self):  # type: ignore[no-untyped-def]  # as the registry's own
        return iter(self._families)
