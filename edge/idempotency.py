"""Customers' idempotency keys: one request per key, on all edges, charged once.

A request with the header pays one call before it is admitted; how it ended is told afterwards, beside it. The claim
names the metering session of this edge and holds only for a request that is admitted under it: usage_svc tells by that
session what became of a claim whose edge died (docs/billing.md, "Idempotency").
"""

import asyncio
import hashlib
import random
import re
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import NamedTuple

from chassis.client import call
from chassis.faults import DeadlineExceeded, Fault, Unavailable
from chassis.lifetime import Lifetime
from chassis.log import logger
from edge import metrics
from edge.access.key_cache import Grant
from edge.bill import Bill
from edge.http.answer import Answer
from edge.http.protocol import Request
from edge.metering.meter import Meter
from edge.openai import errors
from protos.usage.v1 import usage_pb2, usage_pb2_grpc

HEADER = "Idempotency-Key"
REPLAYED: tuple[str, str] = ("idempotent-replayed", "true")
KEY_CHARS_MAX = 255
# Ends that usage_svc was not told yet. One that is dropped is found out by its request's outcome in the ledger.
UNTOLD_MAX = 10_000
# Answers that wait with them; beyond, an end is told without its answer, and a repeat gets 409 instead of it.
UNTOLD_ANSWER_BYTES_MAX = 64 * 1024 * 1024
_TELLERS = 4
_RETRY_S_MIN, _RETRY_S_MAX = 0.1, 2.0
_RETRY_AFTER_S = 1
_CONTENT_TYPE_CHARS_MAX = 200
# A larger body is hashed beside the event loop: it takes longer than a millisecond.
_HASH_INLINE_BYTES = 512 * 1024
_KEY = re.compile(rf"[ -~]{{1,{KEY_CHARS_MAX}}}")

_log = logger(__name__)


class Replay(NamedTuple):
    """An answer that was given before, and the request that got it."""

    request_id: str
    answer: Answer


class Claim:
    """A key that this request holds. `close` it once, whatever became of the request."""

    def __init__(
        self,
        account_id: str,
        key: str,
        request_id: str,
        incarnation: int,
        answer_bytes_max: int,
        tell: Callable[[usage_pb2.FinishIdempotencyKeyRequest], None],
    ) -> None:
        self._account_id, self._key, self._request_id = account_id, key, request_id
        self._incarnation, self._answer_bytes_max, self._tell = incarnation, answer_bytes_max, tell
        self._answer: usage_pb2.StoredAnswer | None = None

    def check(self, bill: Bill) -> None:
        """The request must have been admitted under the session that the claim names.

        Raises:
            RequestError: 503; the session was replaced in between.
        """
        if bill.incarnation != self._incarnation:
            raise errors.unavailable("Usage cannot be recorded right now.", retry_after_s=_RETRY_AFTER_S)

    def keep(self, answer: Answer) -> None:
        """A whole answer, for the repetition of its request; what may not be kept is not."""
        if len(answer.body) <= self._answer_bytes_max:
            self._answer = usage_pb2.StoredAnswer(
                status_code=answer.status, content_type=answer.content_type[:_CONTENT_TYPE_CHARS_MAX], body=answer.body
            )

    def close(self, bill: Bill | None) -> None:
        """The request has ended; `bill` is None if it was not admitted."""
        released = bill is None or bill.is_free_to_repeat
        self._tell(
            usage_pb2.FinishIdempotencyKeyRequest(
                account_id=self._account_id,
                idempotency_key=self._key,
                request_id=self._request_id,
                released=released,
                answer=None if released else self._answer,
            )
        )


class Idempotency:
    """Claims keys, and tells how their requests ended, for as long as the block lasts.

    At the end it tells what is left, within one call's time.
    """

    def __init__(
        self,
        stub: "usage_pb2_grpc.MeteringServiceAsyncStub",
        meter: Meter,
        lifetime: Lifetime,
        *,
        answer_bytes_max: int,
        rpc_timeout_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._stub, self._meter, self._lifetime = stub, meter, lifetime
        self._answer_bytes_max, self._rpc_timeout_s, self._sleep = answer_bytes_max, rpc_timeout_s, sleep
        self._untold: asyncio.Queue[usage_pb2.FinishIdempotencyKeyRequest] = asyncio.Queue(UNTOLD_MAX)
        self._untold_answer_bytes = 0

    async def __aenter__(self) -> "Idempotency":
        metrics.IDEMPOTENCY_UNTOLD.set_function(lambda: float(self._untold.qsize()))
        self._tasks = [
            self._lifetime.supervise(f"idempotency teller {number}", self._tell_for_ever())
            for number in range(_TELLERS)
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            async with asyncio.timeout(self._rpc_timeout_s):
                await self._untold.join()
        except TimeoutError:
            _log.warning("ends of requests with an idempotency key were not told", count=self._untold.qsize())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def claim(
        self, request: Request, grant: Grant, resource: str, body: bytes, request_id: str
    ) -> Claim | Replay:
        """Takes the request's key, or finds the answer that a request with this key got before.

        Raises:
            RequestError: 400, the key is no key; 409, its request is not finished, or its answer was not kept; 422, it
                asked for something else; 503, usage_svc cannot be asked.
        """
        key = key_from(request.headers.getall(HEADER))
        session = self._meter.session
        if session is None:
            raise self._unavailable()
        digest = await _digest(resource, body)
        wanted = usage_pb2.ClaimIdempotencyKeyRequest(
            session=session,
            account_id=grant.account_id,
            idempotency_key=key,
            request_sha256=digest,
            request_id=request_id,
        )
        kept_max = self._answer_bytes_max if grant.log_outputs else -1
        claim = Claim(grant.account_id, key, request_id, session.incarnation, kept_max, self._tell)
        try:
            claimed = await call(
                self._stub.ClaimIdempotencyKey, wanted, timeout_s=self._rpc_timeout_s, request_id=request_id
            )
        except Fault as fault:
            _log.warning("an idempotency key cannot be claimed", reason=fault.reason, request_id=request_id)
            claim.close(None)  # it may have arrived all the same
            raise self._unavailable() from None
        return self._judged(claimed, claim, grant)

    def _judged(self, claimed: usage_pb2.ClaimIdempotencyKeyResponse, claim: Claim, grant: Grant) -> Claim | Replay:
        match claimed.outcome:
            case usage_pb2.CLAIM_OUTCOME_CLAIMED:
                metrics.IDEMPOTENCY.labels("claimed").inc()
                return claim
            case usage_pb2.CLAIM_OUTCOME_IN_FLIGHT:
                metrics.IDEMPOTENCY.labels("in_flight").inc()
                raise errors.idempotency_in_flight(claimed.request_id, _RETRY_AFTER_S)
            case usage_pb2.CLAIM_OUTCOME_MISMATCH:
                metrics.IDEMPOTENCY.labels("mismatch").inc()
                raise errors.idempotency_mismatch(claimed.request_id)
        if not claimed.HasField("answer"):
            metrics.IDEMPOTENCY.labels("finished").inc()
            raise errors.idempotency_finished(claimed.request_id)
        metrics.IDEMPOTENCY.labels("replayed").inc()
        kept = claimed.answer
        headers = [REPLAYED] if kept.status_code < 400 else [REPLAYED, ("x-should-retry", "false")]
        return Replay(claimed.request_id, Answer(kept.status_code, kept.body, kept.content_type, headers))

    def _unavailable(self) -> errors.RequestError:
        metrics.IDEMPOTENCY.labels("unavailable").inc()
        return errors.unavailable("The Idempotency-Key cannot be checked right now.", retry_after_s=_RETRY_AFTER_S)

    def _tell(self, ended: usage_pb2.FinishIdempotencyKeyRequest) -> None:
        if self._untold_answer_bytes + len(ended.answer.body) > UNTOLD_ANSWER_BYTES_MAX:
            ended.ClearField("answer")
        try:
            self._untold.put_nowait(ended)
        except asyncio.QueueFull:
            _log.error("too many ends of requests with an idempotency key wait", request_id=ended.request_id)
        else:
            self._untold_answer_bytes += len(ended.answer.body)

    async def _tell_for_ever(self) -> None:
        while True:
            ended = await self._untold.get()
            await self._tell_one(ended)
            self._untold_answer_bytes -= len(ended.answer.body)
            self._untold.task_done()

    async def _tell_one(self, ended: usage_pb2.FinishIdempotencyKeyRequest) -> None:
        retry_s = _RETRY_S_MIN
        while True:
            try:
                await call(
                    self._stub.FinishIdempotencyKey,
                    ended,
                    timeout_s=self._rpc_timeout_s,
                    request_id=ended.request_id,
                )
                return
            except (Unavailable, DeadlineExceeded):
                await self._sleep(retry_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
                retry_s = min(retry_s * 2, _RETRY_S_MAX)
            except Fault as fault:
                _log.error("usage_svc refused the end of a request", reason=fault.reason, request_id=ended.request_id)
                return


def key_from(values: list[str]) -> str:
    """The one key that a request names.

    Raises:
        RequestError: 400; more than one, or not what a key can be.
    """
    if len(values) != 1 or _KEY.fullmatch(values[0]) is None:
        raise errors.invalid_request(
            f"`{HEADER}` must be given once and be 1 to {KEY_CHARS_MAX} printable characters of ASCII, such as a UUID."
        )
    return values[0]


async def _digest(resource: str, body: bytes) -> bytes:
    if len(body) <= _HASH_INLINE_BYTES:
        return _sha256(resource, body)
    return await asyncio.to_thread(_sha256, resource, body)


def _sha256(resource: str, body: bytes) -> bytes:
    hashed = hashlib.sha256(resource.encode() + b"\0")
    hashed.update(body)
    return hashed.digest()
