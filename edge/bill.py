"""The bill of one admitted request: collects what happened, then writes exactly one outcome."""

import asyncio
import time

from chassis.log import logger
from edge import metrics
from edge.access.key_cache import Grant
from edge.http.record import RequestRecord
from edge.limits.limiter import Ticket
from edge.limits.spend import SpendHold
from edge.metering.meter import Admission, Meter
from edge.metering.usage_event import Attempt, UsageEvent
from edge.openai.ask import Ask
from edge.routing.snapshot import CHAT, RESPONSES, Deployment, Model, PricePoint
from edge.upstream.connection import Call
from edge.upstream.text_size import request_text_bytes
from pricing import TokenUsage, charge_nanousd, is_plausible
from protos.usage.v1 import usage_pb2

_log = logger(__name__)

# English text has about four bytes a token; only estimates use it.
BYTES_PER_TOKEN = 4
RESOURCE_TO_PB = {CHAT: usage_pb2.RESOURCE_CHAT_COMPLETIONS, RESPONSES: usage_pb2.RESOURCE_RESPONSES}

_OUTCOMES = {
    usage_pb2.OUTCOME_MEASURED: "measured",
    usage_pb2.OUTCOME_ESTIMATED: "estimated",
    usage_pb2.OUTCOME_WAIVED: "waived",
    usage_pb2.OUTCOME_NONE: "none",
}
_ENDINGS = {
    usage_pb2.ENDING_COMPLETED: "completed",
    usage_pb2.ENDING_CLIENT_GONE: "client_gone",
    usage_pb2.ENDING_UPSTREAM_FAILED: "upstream_failed",
}


class Bill:
    """Settle it once, in one of four ways, and await what that returns before the end of the answer is released."""

    # Whether the attempt that is under way asked for usage in every chunk of a stream.
    continuous_usage = False
    # Whether some upstream may still be generating what it was asked, though its answer never came.
    may_have_generated = False
    outcome = usage_pb2.OUTCOME_UNSPECIFIED

    def __init__(
        self,
        meter: Meter,
        admission: Admission,
        record: RequestRecord,
        grant: Grant,
        model: Model,
        point: PricePoint,
        ask: Ask,
        resource: str,
        admit_time_s: float,
        admitted_at_s: float,
    ) -> None:
        self._meter, self._admission, self._record = meter, admission, record
        self._grant, self._model, self._point, self._ask = grant, model, point, ask
        self._resource = resource
        self._admit_time_s, self._admitted_at_s = admit_time_s, admitted_at_s
        self._attempt_started_at_s = admitted_at_s
        self._attempts: list[Attempt] = []
        self._first_byte_at_s = 0.0
        self.deployment: Deployment | None = None
        self.settled = False
        self.ticket: Ticket | None = None  # of a key with limits
        self.spend_hold: SpendHold | None = None  # of a key with a spend limit
        self.end_time_s: float | None = None  # seconds since the epoch; None until it is settled

    @property
    def incarnation(self) -> int:
        """Of the metering session under which the request was admitted."""
        return self._admission.incarnation

    @property
    def is_free_to_repeat(self) -> bool:
        """Whether it ended without a charge and without a whole answer, as usage_svc judges it too
        (usage_svc/idempotency.py)."""
        if self.outcome == usage_pb2.OUTCOME_WAIVED:
            return self._record.ending == _ENDINGS[usage_pb2.ENDING_UPSTREAM_FAILED]
        return self.outcome in (usage_pb2.OUTCOME_UNSPECIFIED, usage_pb2.OUTCOME_NONE)

    # -- what happens on the way --

    def started_attempt(self, deployment: Deployment, now_s: float) -> None:
        """A deployment is being called."""
        self.deployment = deployment
        self._attempt_started_at_s = now_s
        self._record.attempts += 1
        self._record.deployment_id = deployment.deployment_id

    def ended_attempt(self, failure: str, status: int, now_s: float) -> None:
        """Its head, or its failure, is known; `failure` is empty when it may be passed on."""
        assert self.deployment is not None
        duration_ms = int((now_s - self._attempt_started_at_s) * 1000)
        self._record.upstream_s += now_s - self._attempt_started_at_s
        self._attempt_started_at_s = now_s
        self._attempts.append(Attempt(self.deployment.deployment_id, status, failure, duration_ms))

    def broke_attempt(self, failure: str, now_s: float) -> None:
        """The attempt that had answered broke off: it stays one attempt, with the status that it had."""
        broken = self._attempts[-1]
        duration_ms = broken.duration_ms + int((now_s - self._attempt_started_at_s) * 1000)
        self._attempts[-1] = broken._replace(failure=failure, duration_ms=duration_ms)

    def saw_first_byte(self, call: Call) -> None:
        """The answer that the client gets has begun."""
        self._first_byte_at_s = call.first_byte_at_s
        self._record.first_byte_at_s = call.first_byte_at_s

    # -- the outcome --

    def settle(
        self,
        usage: TokenUsage,
        source: "usage_pb2.UsageSource.ValueType",
        status: int,
        ending: "usage_pb2.Ending.ValueType",
    ) -> "asyncio.Future[None]":
        """Charged by what the upstream reported."""
        if self._ask.images:
            usage = TokenUsage(
                usage.prompt_tokens,
                usage.completion_tokens,
                usage.cached_tokens,
                usage.cache_write_tokens,
                usage.reasoning_tokens,
                usage.audio_tokens,
                usage.image_tokens,
                self._ask.images,
            )
        charge = charge_nanousd(usage, self._point.price) if is_plausible(usage, self._tokens_max) else 0
        self._record.usage, self._record.charge_nanousd = usage, charge
        metrics.count_tokens(self._model.model_id, usage, charge)
        return self._finish(usage_pb2.OUTCOME_MEASURED, source, status, ending, usage, charge)

    def settle_estimated(
        self, completion_tokens: int, status: int, ending: "usage_pb2.Ending.ValueType"
    ) -> "asyncio.Future[None]":
        """Charged by what was delivered, about a token an event, and by the request's text; never above the hold.

        For answers whose usage the client itself put out of reach, since leaving early is not free; and for those whose
        deployment has this policy.
        """
        prompt_tokens = min(request_text_bytes(self._ask.body) // BYTES_PER_TOKEN, self._model.context_length)
        usage = TokenUsage(prompt_tokens, min(completion_tokens, self._tokens_max), images=self._ask.images)
        charge = min(charge_nanousd(usage, self._point.price), self._admission.hold_nanousd)
        self._record.usage, self._record.charge_nanousd = usage, charge
        metrics.count_tokens(self._model.model_id, usage, charge)
        return self._finish(
            usage_pb2.OUTCOME_ESTIMATED, usage_pb2.USAGE_SOURCE_ESTIMATED, status, ending, usage, charge
        )

    def settle_unmetered(
        self, completion_tokens: int | None, status: int, ending: "usage_pb2.Ending.ValueType", *, failed: bool
    ) -> "asyncio.Future[None]":
        """Something was generated, but its upstream did not say how much: estimated or waived, by its deployment's
        policy, and the operator is told.

        completion_tokens: about what was delivered; None if that cannot be told, and nothing can be charged. failed:
        the answer broke off or ended in a failure, which has a policy of its own.
        """
        assert self.deployment is not None
        estimates = self.deployment.estimates_failed if failed else self.deployment.estimates_missing
        estimates = estimates and completion_tokens is not None
        metrics.UNMETERED.labels(self.deployment.deployment_id, "estimate" if estimates else "waive").inc()
        _log.warning(
            "answer without usable usage",
            request_id=self._record.request_id,
            deployment=self.deployment.deployment_id,
            ending=_ENDINGS[ending],
            policy="estimate" if estimates else "waive",
        )
        if estimates and completion_tokens is not None:
            return self.settle_estimated(completion_tokens, status, ending)
        return self._finish(usage_pb2.OUTCOME_WAIVED, usage_pb2.USAGE_SOURCE_NONE, status, ending, None, 0)

    def settle_nothing(self, status: int, ending: "usage_pb2.Ending.ValueType") -> "asyncio.Future[None]":
        """Nothing was generated, as far as anyone reported."""
        return self._finish(usage_pb2.OUTCOME_NONE, usage_pb2.USAGE_SOURCE_NONE, status, ending, None, 0)

    @property
    def _tokens_max(self) -> int:
        # Twice what the catalog says: a server whose real context is larger must not make long prompts free.
        return 2 * self._ask.n * self._model.context_length

    def _finish(
        self,
        outcome: "usage_pb2.Outcome.ValueType",
        source: "usage_pb2.UsageSource.ValueType",
        status: int,
        ending: "usage_pb2.Ending.ValueType",
        usage: TokenUsage | None,
        charge: int,
    ) -> "asyncio.Future[None]":
        assert not self.settled, "a bill is settled once"
        self.settled, self.outcome = True, outcome
        if self.ticket is not None:
            _settle_ticket(self.ticket, outcome, usage)
        if self.spend_hold is not None:
            self.spend_hold.settle(charge)
        record = self._record
        now_s = time.monotonic()
        duration_s = now_s - self._admitted_at_s
        self.end_time_s = self._admit_time_s + duration_s
        if self._first_byte_at_s:
            record.upstream_s += max(0.0, now_s - self._attempt_started_at_s)
        record.ending = _ENDINGS[ending]
        metrics.outcomes(_OUTCOMES[outcome], _ENDINGS[ending]).inc()
        point = self._point
        event = UsageEvent(
            price=point.vector_bytes,
            key_id=self._grant.key_id,
            model_id=self._model.model_id,
            deployment_id=record.deployment_id,
            resource=RESOURCE_TO_PB[self._resource],
            status_code=status,
            streamed=self._ask.stream,
            outcome=outcome,
            source=source,
            ending=ending,
            plausible_tokens_max=self._tokens_max,
            duration_ms=int(duration_s * 1000),
            admit_time_us=int(self._admit_time_s * 1e6),
            end_time_us=int(self.end_time_s * 1e6),
            attempts=self._attempts,
        )
        if self._first_byte_at_s:
            event.first_byte_ms = int((self._first_byte_at_s - self._admitted_at_s) * 1000)
        if usage is not None:
            set_tokens(event, usage)
        return self._meter.finish(self._admission, event, charge)


def _settle_ticket(ticket: Ticket, outcome: "usage_pb2.Outcome.ValueType", usage: TokenUsage | None) -> None:
    """Of the reserved tokens stays used what the upstream reported; all of them where it did not say."""
    if usage is not None:
        ticket.settle(max(0, usage.prompt_tokens) + max(0, usage.completion_tokens))
    else:
        ticket.settle(0 if outcome == usage_pb2.OUTCOME_NONE else ticket.tokens)


def set_tokens(event: UsageEvent, usage: TokenUsage) -> None:
    """Writes counts as usage events carry them."""
    (
        event.prompt_tokens,
        event.completion_tokens,
        event.cached_tokens,
        event.cache_write_tokens,
        event.reasoning_tokens,
        event.audio_tokens,
        event.image_tokens,
        event.images,
    ) = usage
