"""Asking one deployment after the other, until one gives an answer that may be passed on."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from edge import metrics
from edge.bill import Bill
from edge.http.protocol import Connection
from edge.openai import errors
from edge.openai.ask import Ask
from edge.openai.errors import RequestError
from edge.routing.choose import Health
from edge.routing.snapshot import CHAT, Deployment, Model
from edge.upstream.connection import Call, Failure
from edge.upstream.upstreams import Upstreams
from protos.usage.v1 import usage_pb2

_REFUSED_OUR_CREDENTIALS = frozenset({401, 402, 403})
# Servers that know no `stream_options` refuse it by name with one of these.
_REFUSED_A_FIELD = frozenset({400, 422})
# How long that is remembered: a server may be upgraded under the same name.
STREAM_OPTIONS_MEMORY_S = 3600.0
_NONE_REACHABLE = "No server of this model can be reached right now."

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


def meant_for_us(status: int) -> bool:
    """Whether an upstream's status is about how we call it (our credentials, its address) and none of the customer's
    business."""
    return status in _REFUSED_OUR_CREDENTIALS or 300 <= status < 400


def _cannot_serve(status: int) -> bool:
    """Whether another deployment may serve instead."""
    return status == 429 or status >= 500 or meant_for_us(status)


class Attempts:
    """Calls to upstreams for one request; never another one after the first byte of an answer was passed on."""

    def __init__(self, upstreams: Upstreams, health: Health) -> None:
        self._upstreams, self._health = upstreams, health
        self._stream_options_refused_until_s: dict[str, float] = {}  # by deployment

    async def first_answer(self, plan: Plan, read: ReadAnswer) -> Call:
        """The first answer that may be passed on: of each deployment in turn, until one can serve. `read` says how far
        an answer must be read to know that.

        Raises:
            RequestError: 502, 503, 504 when none did; the bill is settled then.
        """
        failure: Failure | None = None
        for index, deployment in enumerate(plan.deployments):
            last = index == len(plan.deployments) - 1
            if index:
                metrics.FAILOVERS.labels(plan.model.model_id).inc()
            plan.bill.started_attempt(deployment, time.monotonic())
            try:
                call = await self._attempt(plan, deployment, read)
            except Failure as caught:
                failure = caught
                self.failed(plan, deployment, caught)
                if (caught.status and not _cannot_serve(caught.status)) or plan.connection.transport is None:
                    break  # it had begun to answer: never generate twice; or nobody waits for it any more
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
                metrics.attempts(deployment.deployment_id, "ok").inc()
            return call
        assert failure is not None  # there is at least one deployment, and none gave an answer
        error = _error_from_failure(failure)
        await plan.bill.settle_nothing(error.status, usage_pb2.ENDING_UPSTREAM_FAILED)
        raise error

    async def _attempt(self, plan: Plan, deployment: Deployment, read: ReadAnswer) -> Call:
        asks_usage = (
            plan.resource == CHAT
            and plan.ask.stream
            and deployment.accepts_stream_options
            and not self._refuses_stream_options(deployment)
        )
        call = await self._ask(plan, deployment, read, asks_usage)
        if (
            asks_usage
            and plan.ask.members.find("stream_options") is None  # else it may be the client's own that is refused
            and call.status in _REFUSED_A_FIELD
            and b"stream_options" in call.peek()
        ):
            call = await self._ask(plan, deployment, read, asks_usage=False)
            if call.status == 200:  # else the request was refused for something else, and only its text had the word
                until_s = time.monotonic() + STREAM_OPTIONS_MEMORY_S
                self._stream_options_refused_until_s[deployment.deployment_id] = until_s
        return call

    def _refuses_stream_options(self, deployment: Deployment) -> bool:
        if not self._stream_options_refused_until_s:  # nearly always
            return False
        return time.monotonic() < self._stream_options_refused_until_s.get(deployment.deployment_id, 0.0)

    async def _ask(self, plan: Plan, deployment: Deployment, read: ReadAnswer, asks_usage: bool) -> Call:
        ask, upstream_model = plan.ask, deployment.upstream_model
        body = ask.upstream_body(None if upstream_model == ask.model else upstream_model, include_usage=asks_usage)
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

    def failed(self, plan: Plan, deployment: Deployment, failure: Failure) -> None:
        """Remembers a deployment that failed, before its answer or in it."""
        now_s = time.monotonic()
        self._health.failed(deployment.deployment_id, now_s)
        plan.bill.ended_attempt(failure.kind, 0, now_s)
        metrics.attempts(deployment.deployment_id, failure.kind).inc()


def _error_from_failure(failure: Failure) -> RequestError:
    if failure.kind in ("connect", "connect_timeout"):
        return errors.unavailable(_NONE_REACHABLE, retry_after_s=1)
    if failure.kind in ("first_byte_timeout", "idle_timeout"):
        return errors.upstream_timeout()
    return errors.upstream_error()
