"""Asking one deployment after the other, until one gives an answer that may be passed on."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edge import metrics
from edge.bill import Bill
from edge.http.body import ClientGone
from edge.http.protocol import Connection
from edge.http.record import CLIENT_GONE_STATUS
from edge.logs.capture import Capture
from edge.openai import errors
from edge.openai.ask import CONTINUOUS_USAGE, INCLUDE_USAGE, Ask
from edge.openai.errors import RequestError
from edge.routing.choose import Health
from edge.routing.snapshot import CHAT, Deployment, Model
from edge.upstream.connection import Call, Failure
from edge.upstream.stream_options import REFUSING_STATUSES, StreamOptions, refused_option
from edge.upstream.upstreams import Upstreams
from protos.usage.v1 import usage_pb2

_REFUSED_OUR_CREDENTIALS = frozenset({401, 402, 403})
_NOTHING_SENT = frozenset({"connect", "connect_timeout"})
# Not the deployment's doing: we gave the answer up, or it was too much for us.
_OUR_DOING = frozenset({"abandoned", "stopped", "too_large"})
_NONE_REACHABLE = "No server of this model can be reached right now."

if TYPE_CHECKING:
    from edge.idempotency import Claim

ReadAnswer = Callable[[Call], Awaitable[None]]


class Plan(NamedTuple):
    """What was decided before the first byte goes upstream."""

    ask: Ask
    resource: str
    model: Model
    deployments: Sequence[Deployment]
    headers: bytes
    bill: Bill
    connection: Connection
    claim: "Claim | None" = None  # of the request's idempotency key, if it has one
    capture: Capture | None = None  # what its key logs of it, if it logs


def meant_for_us(status: int) -> bool:
    """Whether an upstream's status is about how we call it (our credentials, its address) and none of the customer's
    business."""
    return status in _REFUSED_OUR_CREDENTIALS or 300 <= status < 400


def given_up(failure: Failure, gone: bool) -> bool:
    """Whether an answer was given up for want of a client; `gone`: whether it has left. Leaving is not free, also when
    this process ends before the usage comes; who stays until then has no part in it."""
    return failure.kind == "abandoned" or (failure.kind == "stopped" and gone)


def _cannot_serve(status: int) -> bool:
    """Whether another deployment may serve instead."""
    return status >= 300 and (status == 429 or status >= 500 or meant_for_us(status))


class Attempts:
    """Calls to upstreams for one request; never another one after the first byte of an answer was passed on."""

    def __init__(self, upstreams: Upstreams, health: Health) -> None:
        self._upstreams, self._health = upstreams, health
        self._stream_options = StreamOptions()

    async def first_answer(self, plan: Plan, read: ReadAnswer) -> Call:
        """The first answer that may be passed on: of each deployment in turn, until one can serve. `read` says how far
        an answer must be read to know that.

        Raises:
            RequestError: 502, 503, 504 when none did; the bill is settled then.
            ClientGone: the call was given up since its client had left; the bill is settled then, too.
        """
        failure: Failure | None = None
        for index, deployment in enumerate(plan.deployments):
            last = index == len(plan.deployments) - 1
            if index:
                metrics.FAILOVERS.labels(plan.model.model_id).inc()
            plan.bill.started_attempt(deployment, time.monotonic())
            try:
                call = await (
                    self._negotiated(plan, deployment, read)
                    if plan.ask.stream and plan.resource == CHAT and deployment.accepts_stream_options
                    else self._ask(plan, deployment, read, False, False)
                )
            except Failure as caught:
                failure = caught
                self._failed(plan, deployment, caught)
                if (caught.status and not _cannot_serve(caught.status)) or caught.kind == "stopped":
                    break  # it had begun to answer: never generate twice; or there is no time for another
                if plan.connection.transport is None:
                    break  # nobody waits for it any more
                continue
            if _cannot_serve(call.status):
                self._health.failed(deployment.deployment_id, time.monotonic())
                plan.bill.ended_attempt("status", call.status, time.monotonic())
                metrics.attempts(deployment.deployment_id, "status").inc()
                if not last and plan.connection.transport is not None:
                    continue
            else:
                self._health.worked(deployment.deployment_id)
                plan.bill.ended_attempt("", call.status, time.monotonic())
            return call
        assert failure is not None  # there is at least one deployment, and none gave an answer
        if failure.status < 400 and given_up(failure, plan.connection.transport is None):
            # Its client left, and nobody reads on: what was asked is not free for that.
            await plan.bill.settle_estimated(0, CLIENT_GONE_STATUS, usage_pb2.ENDING_CLIENT_GONE)
            raise ClientGone
        error = _error_from_failure(failure)
        if plan.bill.may_have_generated:
            error.should_retry = False
        await plan.bill.settle_nothing(error.status, usage_pb2.ENDING_UPSTREAM_FAILED)
        raise error

    async def _negotiated(self, plan: Plan, deployment: Deployment, read: ReadAnswer) -> Call:
        """A chat stream that asks for its usage, unless its deployment is known to refuse that; or turns out to."""
        ask, learnt, deployment_id = plan.ask, self._stream_options, deployment.deployment_id
        asks_usage = not learnt.refuses(deployment_id, INCLUDE_USAGE)
        continuous = asks_usage and deployment.aborts_abandoned and not learnt.refuses(deployment_id, CONTINUOUS_USAGE)
        call = await self._ask(plan, deployment, read, asks_usage, continuous)
        if asks_usage and call.status in REFUSING_STATUSES:
            # What the client asked for itself is the upstream's to refuse.
            ours = ask.members.find("stream_options") is None
            refused = refused_option(call.peek(), include_usage=ours, continuous_usage=continuous)
            if refused is not None:
                call = await self._ask(plan, deployment, read, refused == CONTINUOUS_USAGE, False)
                if call.status == 200:  # else something else was refused, and only the text had the word
                    learnt.learn(deployment_id, refused)
        return call

    async def _ask(
        self, plan: Plan, deployment: Deployment, read: ReadAnswer, asks_usage: bool, continuous_usage: bool
    ) -> Call:
        ask, upstream_model = plan.ask, deployment.upstream_model
        plan.bill.continuous_usage = continuous_usage
        body = ask.upstream_body(None if upstream_model == ask.model else upstream_model, asks_usage, continuous_usage)
        call = self._upstreams.send_on_kept(deployment, plan.resource, plan.headers, body)
        reused = call is not None
        if call is None:
            call = await self._upstreams.send_on_fresh(deployment, plan.resource, plan.headers, body)
        try:
            await read(call)
        except Failure as failure:
            if not (reused and failure.kind == "closed" and call.untouched):
                raise
            # The peer had closed this kept connection before it saw the request: not an attempt, send it anew.
            metrics.STALE_RETRIES.inc()
            call = await self._upstreams.send_on_fresh(deployment, plan.resource, plan.headers, body)
            await read(call)
        return call

    def worked(self, plan: Plan, call: Call) -> None:
        """Counts an answer that was read to its end. One whose status says that its deployment failed was counted
        before, though it may be passed on."""
        deployment = plan.bill.deployment
        if deployment is not None and not _cannot_serve(call.status):
            metrics.attempts(deployment.deployment_id, "ok").inc()

    def broke(self, plan: Plan, failure: Failure) -> None:
        """Remembers a deployment that failed in the middle of its answer: the attempt was begun, and is none more."""
        now_s = time.monotonic()
        plan.bill.broke_attempt(failure.kind, now_s)
        deployment = plan.bill.deployment
        assert deployment is not None  # it answered
        self._count_failure(deployment, failure, now_s)

    def _failed(self, plan: Plan, deployment: Deployment, failure: Failure) -> None:
        now_s = time.monotonic()
        plan.bill.ended_attempt(failure.kind, 0, now_s)
        if failure.kind not in _NOTHING_SENT:
            plan.bill.may_have_generated = True
        self._count_failure(deployment, failure, now_s)

    def _count_failure(self, deployment: Deployment, failure: Failure, now_s: float) -> None:
        if failure.kind not in _OUR_DOING:
            self._health.failed(deployment.deployment_id, now_s)
        metrics.attempts(deployment.deployment_id, failure.kind).inc()


def _error_from_failure(failure: Failure) -> RequestError:
    if failure.kind in _NOTHING_SENT:
        return errors.unavailable(_NONE_REACHABLE, retry_after_s=1)
    if failure.kind in ("first_byte_timeout", "idle_timeout"):
        return errors.upstream_timeout()
    return errors.upstream_error()
