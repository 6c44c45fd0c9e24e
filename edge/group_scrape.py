"""Asks the members of a group for their metrics whenever Prometheus asks the group; nothing happens in between.

prometheus_client's own way for several processes keeps every number in a shared file: each request would pay for that.
"""

import http.client
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from edge.group_metrics import Tally, summed

# Of the process that starts the others; in no registry but the group's.
PROCESSES = Gauge(
    "tollgate_edge_processes", "With TOLLGATE_EDGE_PROCESSES above 1: processes that answer.", registry=None
)
PROCESS_RESTARTS = Counter(
    "tollgate_edge_process_restarts_total", "Times that one of several edge processes died.", registry=None
)

TIMEOUT_S = 3.0
_THREADS_MAX = 16


class Scraped(Protocol):
    """A member as this module sees it."""

    tally: Tally


class GroupMetrics(Collector):
    """A registry with the sum of the members' metrics. One that does not answer counts as it last did."""

    def __init__(self, members: Sequence[Scraped]) -> None:
        self._members = members
        self._lock = Lock()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Nothing beforehand: asking the members is for scrapes."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Called in the thread of a scrape."""
        with self._lock, ThreadPoolExecutor(_THREADS_MAX) as threads:
            answered = sum(threads.map(_update, self._members))
            families = summed([member.tally for member in self._members])
            PROCESSES.set(answered)
        yield from families
        yield from PROCESSES.collect()
        yield from PROCESS_RESTARTS.collect()


def _update(member: Scraped) -> bool:
    port = member.tally.port
    if not port:
        return False
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return member.tally.update(port, text_string_to_metric_families(text))
