"""Liveness and readiness, which mean different things: a restart heals the one, waiting heals the other."""

from chassis.clock import Clock
from edge.access.key_cache import KeyCache
from edge.http.answer import Answer, Sent, simple_answer
from edge.http.protocol import Request
from edge.http.record import RequestRecord
from edge.metering.meter import Meter
from edge.routing.catalog_watch import CatalogWatch


class Readiness:
    """Ready: has a catalog, has a session with usage_svc, can write its spool, and is not on its way out."""

    def __init__(self, clock: Clock, keys: KeyCache, catalog: CatalogWatch, meter: Meter) -> None:
        self._clock, self._keys, self._catalog, self._meter = clock, keys, catalog, meter
        self.stopping = False

    def missing(self) -> list[str]:
        """What stands in the way of serving; empty when ready."""
        missing = []
        if self.stopping:
            missing.append("stopping")
        if not self._catalog.current.number:
            missing.append("no catalog from catalog_svc yet")
        if not self._meter.ready:
            missing.append("no session with usage_svc, or the spool cannot be written")
        if self._keys.age_s() == float("inf"):
            missing.append("no word from auth_svc yet")
        return missing

    async def alive(self, request: Request, record: RequestRecord) -> Sent:
        """GET /healthz."""
        return simple_answer(request, Answer.from_json({"status": "ok"}), request_id=record.request_id)

    async def ready(self, request: Request, record: RequestRecord) -> Sent:
        """GET /readyz."""
        missing = self.missing()
        answer = Answer.from_json({"status": "unready" if missing else "ready", "missing": missing})
        if missing:
            answer = Answer(503, answer.body)
        return simple_answer(request, answer, request_id=record.request_id)
