"""What API keys allow, held in memory and kept true by a watch.

A known key costs a hash and a look-up. An unknown one waits for auth_svc, and all that wait for the same key share one
call. Revocations are pushed: the watch drops what it names, so that a revoked key stops working within a second. While
the watch is broken, what is held is trusted until `key_max_age_s` after the last proof that it was complete; after that
every key counts as unproven, and a request gets 503, never 401.
"""

import asyncio
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from chassis.client import call, follow
from chassis.clock import Clock
from chassis.faults import Fault, NotFound
from chassis.log import logger
from chassis.secret_token import digest
from edge import metrics
from edge.openai import errors
from protos.auth.v1 import auth_pb2, auth_pb2_grpc

_log = logger(__name__)

# An answer may be older than a change that the watch has already told; then it is asked again.
MAX_STALE_ANSWERS = 5
_UNKNOWN_KEYS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key may ask for; 0 means no limit of this kind."""

    requests_per_minute: int
    tokens_per_minute: int
    concurrent_requests: int


@dataclass(frozen=True, slots=True)
class SpendLimit:
    """What a key may spend in each day or month (UTC)."""

    limit_nanousd: int
    period: auth_pb2.SpendPeriod.ValueType


@dataclass(frozen=True, slots=True)
class Logging:
    """What is kept of a key's requests; 0 days: as the operator says."""

    inputs: bool
    outputs: bool
    retention_days: int


@dataclass(frozen=True, slots=True)
class Grant:
    """What a working key allows, ready for the hot path."""

    key_id: str
    account_id: str
    public_prefix: str
    active: bool
    may_infer: bool
    may_manage: bool
    models: frozenset[str]  # empty: all
    expire_time_s: float  # seconds since the epoch; infinity: never
    log_outputs: bool = False  # answers may be kept
    limits: Limits | None = None
    spend_limit: SpendLimit | None = None
    logging: Logging | None = None  # nothing is kept of most keys' requests

    def may_use(self, model_id: str) -> bool:
        """Whether the key's allow-list covers a model."""
        return not self.models or model_id in self.models


def grant_from_pb(pb: auth_pb2.KeyGrant) -> Grant:
    """A grant as auth_svc sends it."""
    return Grant(
        key_id=pb.key_id,
        account_id=pb.account_id,
        public_prefix=pb.public_prefix,
        active=pb.account_state == auth_pb2.ACCOUNT_STATE_ACTIVE,
        may_infer=auth_pb2.SCOPE_INFERENCE in pb.scopes,
        may_manage=auth_pb2.SCOPE_MANAGEMENT in pb.scopes,
        models=frozenset(pb.allowed_models),
        expire_time_s=pb.expire_time.seconds + pb.expire_time.nanos / 1e9
        if pb.HasField("expire_time")
        else float("inf"),
        log_outputs=pb.log_outputs,
        limits=_limits_from_pb(pb.limits) if pb.HasField("limits") else None,
        spend_limit=SpendLimit(pb.spend_limit.limit_nanousd, pb.spend_limit.period)
        if pb.HasField("spend_limit")
        else None,
        logging=Logging(pb.log_inputs, pb.log_outputs, pb.log_retention_days)
        if pb.log_inputs or pb.log_outputs
        else None,
    )


def _limits_from_pb(pb: auth_pb2.KeyLimits) -> Limits | None:
    limits = Limits(pb.requests_per_minute, pb.tokens_per_minute, pb.concurrent_requests)
    return limits if any((limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests)) else None


class KeyCache:
    """Grants by the hash of the secret; run `follow` beside it."""

    def __init__(
        self,
        stub: "auth_pb2_grpc.KeyServiceAsyncStub",
        clock: Clock,
        *,
        entries_max: int,
        max_age_s: float,
        unknown_s: float,
        rpc_timeout_s: float,
    ) -> None:
        self._stub, self._clock = stub, clock
        self._entries_max, self._max_age_s, self._unknown_s = entries_max, max_age_s, unknown_s
        self._rpc_timeout_s = rpc_timeout_s
        self._grants: OrderedDict[bytes, Grant] = OrderedDict()
        self._digests_by_key: dict[str, bytes] = {}
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Grant]] = {}
        self._revision = 0
        self._proven_at = float("-inf")

    def age_s(self) -> float:
        """Seconds since the watch last proved that everything held is true; infinite before the first time."""
        return self._clock.monotonic() - self._proven_at

    def __len__(self) -> int:
        return len(self._grants)

    def held(self, secret: str) -> Grant | None:
        """The grant of a key if it is known, fresh and not expired; else ask `fetch`."""
        return self.held_by(digest(secret))

    def held_by(self, key_digest: bytes) -> Grant | None:
        """The same, of a key whose digest is known."""
        grant = self._grants.get(key_digest)
        if grant is None or self._clock.monotonic() - self._proven_at > self._max_age_s:
            return None
        if grant.expire_time_s != _NEVER and self._clock.epoch_s() >= grant.expire_time_s:
            return None
        return grant

    async def fetch(
        self, secret: str, trial: AbstractAsyncContextManager[None], request_id: str | None = None
    ) -> Grant:
        """The grant of a key from auth_svc, which logs the call under the id of the request that asked first.

        `trial` is entered by whoever asks, and not for a key of which auth_svc has just said that there is none: to try
        it again is no further guess.

        Raises:
            RequestError: 401 for an unknown, revoked or expired key; 503 when auth_svc cannot be asked; what `trial`
                raises.
        """
        key_digest = digest(secret)
        until = self._unknown.get(key_digest)
        if until is not None and self._clock.monotonic() < until:
            raise errors.invalid_api_key()
        task = self._asking.get(key_digest)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(key_digest, trial, request_id))
            self._asking[key_digest] = task
            task.add_done_callback(lambda done: self._asked(key_digest, done))
        try:
            return await asyncio.shield(task)
        except NotFound:
            raise errors.invalid_api_key() from None
        except Fault as fault:
            _log.warning("key cannot be checked", reason=fault.reason)
            raise errors.unavailable(
                "API keys cannot be checked right now; try again shortly.", retry_after_s=1
            ) from None

    def _asked(self, key_digest: bytes, task: asyncio.Task[Grant]) -> None:
        self._asking.pop(key_digest, None)
        if not task.cancelled():
            task.exception()  # every waiter has seen it, or has gone

    async def _ask(self, key_digest: bytes, trial: AbstractAsyncContextManager[None], request_id: str | None) -> Grant:
        async with trial:
            return await self._answer(key_digest, request_id)

    async def _answer(self, key_digest: bytes, request_id: str | None) -> Grant:
        metrics.KEY_CACHE_MISSES.inc()
        for _ in range(MAX_STALE_ANSWERS):
            try:
                answer = await call(
                    self._stub.Authenticate,
                    auth_pb2.AuthenticateRequest(key_sha256=key_digest),
                    timeout_s=self._rpc_timeout_s,
                    request_id=request_id,
                )
            except NotFound:
                self._unknown[key_digest] = self._clock.monotonic() + self._unknown_s
                if len(self._unknown) > _UNKNOWN_KEYS_MAX:
                    self._unknown.popitem(last=False)
                raise
            if answer.revision >= self._revision:
                break
        grant = grant_from_pb(answer.grant)
        if answer.revision >= self._revision:
            self._keep(key_digest, grant)
        return grant

    def _keep(self, key_digest: bytes, grant: Grant) -> None:
        self._grants[key_digest] = grant
        self._digests_by_key[grant.key_id] = key_digest
        if len(self._grants) > self._entries_max:
            _, oldest = self._grants.popitem(last=False)
            self._digests_by_key.pop(oldest.key_id, None)

    async def follow(self) -> None:
        """Keeps what is held true; runs as long as the process."""
        async for message in follow(
            "keys",
            self._stub.WatchKeys,
            lambda: auth_pb2.WatchKeysRequest(after_revision=self._revision),
            first_timeout_s=self._rpc_timeout_s,
        ):
            self._take(message)

    def _take(self, message: auth_pb2.WatchKeysResponse) -> None:
        kind = message.WhichOneof("message")
        if kind == "change":
            self._revision = message.change.revision
            self._unknown.clear()  # the change may be the birth of a key
            if message.change.WhichOneof("subject") == "key_id":
                key_digest = self._digests_by_key.pop(message.change.key_id, None)
                if key_digest is not None:
                    self._grants.pop(key_digest, None)
            else:
                self._drop_account(message.change.account_id)
        elif kind == "heartbeat":
            self._revision = message.heartbeat.revision
            self._proven_at = self._clock.monotonic()
        elif kind == "reset":
            self._revision = message.reset.revision
            self._grants.clear()
            self._digests_by_key.clear()
            self._unknown.clear()

    def _drop_account(self, account_id: str) -> None:
        gone = [(d, g.key_id) for d, g in self._grants.items() if g.account_id == account_id]
        for key_digest, key_id in gone:
            del self._grants[key_digest]
            self._digests_by_key.pop(key_id, None)


_NEVER = float("inf")
