"""GET /v1/models and GET /v1/models/{id}: the live catalog, as far as the key may use it."""

from collections.abc import Callable, Iterable
from urllib.parse import parse_qs

import msgspec

from chassis.clock import Clock
from edge.access.bearer import grant_of
from edge.access.key_cache import Grant, KeyCache
from edge.http.answer import Answer, Sent, simple_answer
from edge.http.protocol import Request
from edge.http.record import RequestRecord
from edge.limits.addresses import Addresses
from edge.openai import errors
from edge.openai.models import model_entry, models_list
from edge.openai.openrouter import openrouter_document
from edge.routing.catalog_watch import CatalogWatch
from edge.routing.snapshot import Model, PricePoint


class Listing:
    """Answers from the snapshot in memory."""

    def __init__(self, clock: Clock, keys: KeyCache, addresses: Addresses, catalog: CatalogWatch, public: bool) -> None:
        self._clock, self._keys, self._addresses = clock, keys, addresses
        self._catalog, self._public = catalog, public

    async def list_models(self, request: Request, record: RequestRecord) -> Sent:
        """GET /v1/models."""
        grant = await self._grant(request, record)
        formats = parse_qs(request.query).get("format", [])
        render: Callable[[Iterable[tuple[Model, PricePoint]]], object]
        if not formats:
            render = models_list
        elif formats == ["openrouter"]:
            render = openrouter_document
        else:
            raise errors.invalid_request("`format` is `openrouter`, or left out.", param="format")
        body = msgspec.json.encode(render(self._live(grant)))
        return simple_answer(request, Answer(200, body), request_id=record.request_id)

    async def one_model(self, request: Request, record: RequestRecord, model_id: str) -> Sent:
        """GET /v1/models/{id}; the id may contain slashes, plain or escaped."""
        grant = await self._grant(request, record)
        for model, point in self._live(grant):
            if model.model_id == model_id:
                answer = Answer.from_json(model_entry(model, point))
                return simple_answer(request, answer, request_id=record.request_id)
        raise errors.model_not_found(model_id)

    async def _grant(self, request: Request, record: RequestRecord) -> Grant | None:
        """Who asks; None where the list is public and no key came along."""
        if not self._catalog.current.number:
            raise errors.unavailable("The model catalog is not loaded yet.", retry_after_s=1)
        if self._public and "Authorization" not in request.headers:
            return None
        grant = await grant_of(request, self._keys, self._addresses, record.request_id)
        record.account_id, record.key_prefix = grant.account_id, grant.public_prefix
        if not grant.active:
            raise errors.permission_denied("This account is suspended. Contact the operator of this service.")
        return grant

    def _live(self, grant: Grant | None) -> Iterable[tuple[Model, PricePoint]]:
        now_s = self._clock.epoch_s()
        for model in self._catalog.current.live(now_s):
            point = model.price_at(now_s)
            if point is not None and (grant is None or grant.may_use(model.model_id)):
                yield model, point
