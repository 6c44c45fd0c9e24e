"""One generation, from its key to its bill: the request's way through the house, in the order in which it happens.

    access -> openai (what is asked) -> routing (where) -> metering (may they afford it) -> upstream -> metering (bill)

Both public resources go this way; what differs between them is in edge/openai and edge/upstream/usage_tap.py.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from functools import partial

from chassis.clock import Clock
from edge import metrics
from edge.access.bearer import grant_of, held_grant
from edge.access.key_cache import Grant, KeyCache, Limits
from edge.attempts import Attempts, Plan, given_up, meant_for_us
from edge.bill import BYTES_PER_TOKEN, RESOURCE_TO_PB, Bill
from edge.http.answer import Answer, Sent, simple_answer
from edge.http.body import ClientGone, held_body, read_rest
from edge.http.protocol import Request
from edge.http.record import RequestRecord
from edge.idempotency import HEADER as IDEMPOTENCY_KEY
from edge.idempotency import Claim, Idempotency, Replay
from edge.limits.addresses import Addresses
from edge.limits.headers import rate_headers
from edge.limits.limiter import Limiter
from edge.limits.spend import SpendBook
from edge.logs.keeper import LogKeeper
from edge.logs.logged_relay import LoggedRelay
from edge.metering.meter import Meter
from edge.metering.refusals import MeteringRefusal
from edge.openai import errors
from edge.openai.ask import Ask, asks_continuous_usage
from edge.openai.chat import read_chat
from edge.openai.errors import RequestError, error_body
from edge.openai.responses import read_responses
from edge.refusal_errors import error_from_refusal
from edge.routing.catalog_watch import CatalogWatch
from edge.routing.choose import Health, order
from edge.routing.snapshot import CHAT, RESPONSES, Deployment, Model
from edge.settings import EdgeSettings
from edge.token_bounds import token_bounds
from edge.upstream.connection import Call, Failure
from edge.upstream.drains import Drains
from edge.upstream.relay import Relay, no_buffering
from edge.upstream.text_size import answer_text_bytes
from edge.upstream.upstreams import Upstreams, forwarded_headers, passed_headers
from edge.upstream.usage_tap import Carry, EventTooLarge, StreamTap, chat_tap, responses_tap, usage_from_body
from edge.upstream.watchdog import Watchdog
from pricing import hold_nanousd
from protos.usage.v1 import usage_pb2

_DONE = b"data: [DONE]\n\n"
# Far below what usage_svc finds plausible, so that no request can be made that it would set aside.
IMAGES_MAX = 1000
_EVENT_STREAM = "text/event-stream"


class Generator:
    """Serves POST /v1/chat/completions and POST /v1/responses."""

    def __init__(
        self,
        settings: EdgeSettings,
        clock: Clock,
        keys: KeyCache,
        addresses: Addresses,
        catalog: CatalogWatch,
        meter: Meter,
        limiter: Limiter,
        spending: SpendBook,
        upstreams: Upstreams,
        watchdog: Watchdog,
        idempotency: Idempotency,
        logs: LogKeeper,
    ) -> None:
        self._settings, self._clock = settings, clock
        self._keys, self._addresses, self._catalog, self._meter = keys, addresses, catalog, meter
        self._limiter, self._spending = limiter, spending
        self._watchdog, self._idempotency = watchdog, idempotency
        self._logs = logs
        self._health = Health()
        self._attempts = Attempts(upstreams, self._health)
        self._drains = Drains(settings.abandoned_drains_max)
        self._randomness = random.Random()  # noqa: S311 - spreads load
        self.open_requests = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def until_idle(self) -> None:
        """Waits until every request has its answer and its outcome."""
        await self._idle.wait()

    async def generate(self, resource: str, request: Request, record: RequestRecord) -> Sent:
        """POST to one of the two resources. Open from the first moment: one that waits for funds is not cut either."""
        self.open_requests += 1
        self._idle.clear()
        try:
            return await self._generate(resource, request, record)
        finally:
            self.open_requests -= 1
            if not self.open_requests:
                self._idle.set()

    async def _generate(self, resource: str, request: Request, record: RequestRecord) -> Sent:
        grant = held_grant(request, self._keys) or await grant_of(
            request, self._keys, self._addresses, record.request_id
        )
        record.account_id, record.key_prefix = grant.account_id, grant.public_prefix
        try:
            return await self._serve(resource, request, record, grant)
        except RequestError:
            self._tell_rates(record, grant)
            raise

    def _tell_rates(self, record: RequestRecord, grant: Grant) -> None:
        """For an answer without an admission, which tells them itself."""
        if grant.limits is not None and not record.rate_headers:
            record.rate_headers = rate_headers(self._limiter.share_of(grant, grant.limits), self._clock.monotonic())

    async def _serve(self, resource: str, request: Request, record: RequestRecord, grant: Grant) -> Sent:
        if not grant.active:
            raise errors.permission_denied("This account is suspended. Contact the operator of this service.")
        if not grant.may_infer:
            raise errors.permission_denied("This API key may not generate. Use a key with the `inference` scope.")
        body = held_body(request, self._settings.body_bytes_max)
        if body is None:
            body = await read_rest(request, self._settings.body_bytes_max, self._settings.body_timeout_s)
        ask = read_chat(body) if resource == CHAT else read_responses(body)
        if ask.images > IMAGES_MAX:
            raise errors.invalid_request(f"The request has {ask.images} images; at most {IMAGES_MAX} are taken.")
        model = self._model(ask, grant)
        record.model = model.model_id
        deployments = self._candidates(model, ask, resource)
        if request.connection.transport is None:
            raise ClientGone
        headers = forwarded_headers(request.headers, record.request_id)
        claim: Claim | None = None
        if IDEMPOTENCY_KEY in request.headers:
            claimed = await self._idempotency.claim(request, grant, resource, body, record.request_id)
            if isinstance(claimed, Replay):
                self._tell_rates(record, grant)
                return simple_answer(request, claimed.answer.also(record.rate_headers), request_id=claimed.request_id)
            claim = claimed
        try:
            if grant.limits is None:
                bill = await self._admit(record, grant, model, ask, resource)
            else:
                bill = await self._admit_limited(record, grant, grant.limits, model, ask, resource)
        except BaseException:
            if claim is not None:
                claim.close(None)
            raise
        capture = None if grant.logging is None else self._logs.begin(record, grant, RESOURCE_TO_PB[resource], ask)
        plan = Plan(ask, resource, model, deployments, headers, bill, request.connection, claim, capture)
        try:
            if claim is not None:
                claim.check(bill)
            if ask.stream:
                return await self._stream(request, record, plan)
            call = await self._attempts.first_answer(plan, Call.end)
            return await self._answer_whole(request, record, plan, call)
        except RequestError as error:
            if capture is not None:
                capture.answered(error.status, error_body(error))
            raise
        finally:
            if capture is not None:
                capture.end(bill.end_time_s)
            # Whatever went wrong above: an admitted request gets exactly one outcome.
            if not bill.settled:
                await bill.settle_nothing(500, usage_pb2.ENDING_UPSTREAM_FAILED)
            if claim is not None:
                claim.close(bill)

    # -- before the upstream --

    def _model(self, ask: Ask, grant: Grant) -> Model:
        snapshot = self._catalog.current
        if not snapshot.number:
            raise errors.unavailable("The model catalog is not loaded yet.", retry_after_s=1)
        model = snapshot.models.get(ask.model)
        if model is None or not grant.may_use(ask.model):
            now_s = self._clock.epoch_s()
            raise errors.unknown_model(
                ask.model, [m.model_id for m in snapshot.live(now_s) if grant.may_use(m.model_id)]
            )
        return model

    def _candidates(self, model: Model, ask: Ask, resource: str) -> Sequence[Deployment]:
        """The deployments that may serve this request, in the order in which to try them.

        Raises:
            RequestError: 400 when every deployment refuses something that is asked; 503 when there is none.
        """
        refusal: RequestError | None = None
        allowed: list[Deployment] = []
        for deployment in model.deployments:
            if resource not in deployment.resources:
                continue
            try:
                deployment.refusals.refuse(ask)
            except RequestError as error:
                refusal = refusal or error
            else:
                allowed.append(deployment)
        if not allowed:
            if refusal is not None:
                raise refusal
            if model.deployments:
                raise errors.invalid_request(f"`{model.model_id}` is not served on this endpoint.", param="model")
            raise errors.unavailable(f"No server is configured for `{model.model_id}`.", retry_after_s=60)
        return order(allowed, self._health, time.monotonic(), self._randomness)[: self._settings.upstream_attempts_max]

    async def _admit(self, record: RequestRecord, grant: Grant, model: Model, ask: Ask, resource: str) -> Bill:
        now_s = self._clock.epoch_s()
        point = model.price_at(now_s)
        if point is None:
            raise errors.unavailable(f"`{model.model_id}` has no price yet.", retry_after_s=60)
        hold = hold_nanousd(*token_bounds(model, ask), point.price, ask.images)
        spend_hold = None
        if grant.spend_limit is not None:
            spend_hold = await self._spending.hold(grant.account_id, grant.key_id, grant.spend_limit, hold, now_s)
        asked = (record.request_id, grant.account_id, hold, grant.key_id, model.model_id, RESOURCE_TO_PB[resource])
        try:
            admission = self._meter.try_admit(*asked)
            if admission is None:
                admission = await self._meter.admit(*asked)
        except BaseException as refusal:
            if spend_hold is not None:
                spend_hold.undo()
            if isinstance(refusal, MeteringRefusal):
                raise error_from_refusal(refusal) from None
            raise
        bill = Bill(self._meter, admission, record, grant, model, point, ask, resource, now_s, time.monotonic())
        bill.spend_hold = spend_hold
        return bill

    async def _admit_limited(
        self, record: RequestRecord, grant: Grant, limits: Limits, model: Model, ask: Ask, resource: str
    ) -> Bill:
        share, tokens = self._limiter.share_of(grant, limits), sum(token_bounds(model, ask))
        try:
            ticket = self._limiter.try_admit(grant.key_id, share, tokens)
            if ticket is None:
                ticket = await self._limiter.admit(grant.key_id, share, tokens)
        finally:
            record.rate_headers = rate_headers(share, self._clock.monotonic())
        try:
            bill = await self._admit(record, grant, model, ask, resource)
        except BaseException:
            ticket.undo()
            raise
        bill.ticket = ticket
        return bill

    # -- a whole answer --

    async def _answer_whole(self, request: Request, record: RequestRecord, plan: Plan, call: Call) -> Sent:
        """Bills and passes on an answer that was read to its end."""
        bill, body = plan.bill, call.body()
        bill.saw_first_byte(call)
        self._attempts.worked(plan, call)
        gone = request.connection.transport is None
        ending = usage_pb2.ENDING_CLIENT_GONE if gone else usage_pb2.ENDING_COMPLETED
        if meant_for_us(call.status):
            await bill.settle_nothing(502, usage_pb2.ENDING_UPSTREAM_FAILED)
            raise errors.upstream_error()
        if call.status < 400 or b'"usage"' in body:
            usage = usage_from_body(body, "chat" if plan.resource == CHAT else "responses")
        else:
            usage = None
        if call.status >= 400:
            ending = usage_pb2.ENDING_UPSTREAM_FAILED
            if usage is None:
                await bill.settle_nothing(call.status, ending)
        if usage is not None:
            await bill.settle(usage, usage_pb2.USAGE_SOURCE_UPSTREAM_FINAL, call.status, ending)
        elif not bill.settled:
            delivered_bytes = answer_text_bytes(body)
            tokens = None if delivered_bytes is None else -(-delivered_bytes // BYTES_PER_TOKEN)
            await bill.settle_unmetered(tokens, call.status, ending, failed=False)
        headers = [*passed_headers(call.headers), *record.rate_headers]
        if call.status >= 400 and (usage is not None or bill.may_have_generated):  # never generate, or charge, twice
            headers = [pair for pair in headers if pair[0] != "x-should-retry"]
            headers.append(("x-should-retry", "false"))
        content_type = call.header("content-type") or "application/octet-stream"
        answer = Answer(call.status, body, content_type, [pair for pair in headers if pair[0] != "content-type"])
        if plan.claim is not None:
            plan.claim.keep(answer)
        if plan.capture is not None:
            plan.capture.answered(call.status, body)
        return simple_answer(request, answer, request_id=record.request_id)

    # -- a stream --

    async def _stream(self, request: Request, record: RequestRecord, plan: Plan) -> Sent:
        settings, now_s = self._settings, time.monotonic()
        tap = _tap(plan.ask, settings.event_bytes_max)
        make_relay = Relay if plan.capture is None else partial(LoggedRelay, plan.capture)
        relay = make_relay(
            request,
            tap,
            record.request_id,
            now_s=now_s,
            comment_interval_s=settings.comment_interval_s,
            client_stall_s=settings.client_stall_s,
            abandoned_drain_s=settings.abandoned_drain_s,
            commit_at_s=now_s + plan.deployments[0].commit_after_s,
            clock_s=time.monotonic,
            drains=self._drains,
            more_headers=record.rate_headers,
        )
        self._watchdog.add(relay)
        metrics.OPEN_STREAMS.inc()
        try:
            return await self._relay(request, record, plan, relay)
        except RequestError as error:
            if not relay.committed:
                raise
            record.error = error.reason
            return self._break_off(plan, relay, error)
        finally:
            relay.let_go()  # without an end, should a bug of ours have thrown us out of the middle
            metrics.OPEN_STREAMS.dec()

    async def _relay(self, request: Request, record: RequestRecord, plan: Plan, relay: Relay) -> Sent:
        bill, tap = plan.bill, relay.tap
        call = await self._attempts.first_answer(plan, partial(self._read_head, plan, relay))
        if call.status != 200 or not call.header("content-type").startswith(_EVENT_STREAM):
            if relay.committed:
                await bill.settle_nothing(502, usage_pb2.ENDING_UPSTREAM_FAILED)
                raise errors.upstream_error()
            return await self._answer_whole(request, record, plan, call)
        bill.saw_first_byte(call)
        record.status = 200
        if bill.continuous_usage and not asks_continuous_usage(plan.ask):
            tap.withhold_running_usage()
        failure: Failure | None = None
        relay.follow(call, [*passed_headers(call.headers), *no_buffering(call)])
        try:
            await call.end()
            self._attempts.worked(plan, call)
        except Failure as caught:
            failure = caught
            self._attempts.broke(plan, caught)
        if not tap.ended:
            try:
                relay.write(tap.release())  # may complete the end
            except EventTooLarge as error:
                failure = Failure("too_large", str(error))
        ending = usage_pb2.ENDING_CLIENT_GONE if relay.gone else usage_pb2.ENDING_COMPLETED
        if not (tap.ended or tap.finished):
            ending = usage_pb2.ENDING_CLIENT_GONE if relay.gone else usage_pb2.ENDING_UPSTREAM_FAILED
        elif tap.error_seen:
            ending = usage_pb2.ENDING_UPSTREAM_FAILED
        whole = tap.ended or (tap.finished and tap.usage is not None)
        if tap.usage is not None and not tap.unmetered:
            source = usage_pb2.USAGE_SOURCE_UPSTREAM_FINAL if whole else usage_pb2.USAGE_SOURCE_UPSTREAM_PARTIAL
            await bill.settle(tap.usage, source, 200, ending)
        elif not whole and failure is not None and (given_up(failure, relay.gone) or failure.kind == "too_large"):
            # What was delivered is not free because its client left, or asked for an event beyond the limit.
            await bill.settle_estimated(tap.delivered_events, 200, ending)
        else:
            failed = tap.error_seen or not (tap.ended or tap.finished)
            await bill.settle_unmetered(tap.delivered_events, 200, ending, failed=failed)
        if tap.ended:
            return relay.finish(tap.ending())
        if tap.finished:  # the upstream died after every choice was finished: the customer has all there is
            return relay.finish(_DONE)
        timed_out = failure is not None and failure.kind == "idle_timeout"
        raise errors.upstream_timeout() if timed_out else errors.upstream_error()

    async def _read_head(self, plan: Plan, relay: Relay, call: Call) -> None:
        """A stream's answer is chosen by its head; anything else than a stream is read to its end."""
        relay.waits_for(call, aborts=plan.bill.continuous_usage)
        await call.head()
        if call.status != 200 or not call.header("content-type").startswith(_EVENT_STREAM):
            await call.end()

    def _break_off(self, plan: Plan, relay: Relay, error: RequestError) -> Sent:
        """One error event, and the stream ends without looking finished."""
        if plan.resource == RESPONSES:
            event = errors.responses_error_event(error, relay.tap.sequence_number + 1)
        else:
            event = errors.chat_error_event(error)
        return relay.finish(event)


_CARRY = {None: Carry.CARRY, True: Carry.UNCHANGED, False: Carry.WITHHOLD}


def _tap(ask: Ask, event_bytes_max: int) -> StreamTap:
    if ask.resource == "responses":
        return responses_tap(event_bytes_max)
    return chat_tap(_CARRY[ask.include_usage], ask.n, event_bytes_max)
