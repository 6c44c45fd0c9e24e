"""For edges, on the wire: sessions, leases and the usage that they spooled."""

# ruff: noqa: N802 - the contract names these methods

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from chassis.database import Database
from protos.usage.v1 import usage_pb2 as pb
from protos.usage.v1 import usage_pb2_grpc
from usage_svc import bounds, session_store
from usage_svc.convert import (
    batch_from_pb,
    demand_from_pb,
    duration_to_pb,
    exceptional_to_pb,
    grant_to_pb,
    hint_to_pb,
    limit_demand_from_pb,
    limit_share_to_pb,
    session_id_from_pb,
    session_id_to_pb,
    spend_demand_from_pb,
    spend_grant_to_pb,
    undrained_to_pb,
)
from usage_svc.driver import write_by_script
from usage_svc.funding import Funding, fenced
from usage_svc.idempotency_convert import answer_from_pb, claim_from_pb, claimed_to_pb, holder_from_pb
from usage_svc.idempotency_keys import IdempotencyKeys
from usage_svc.key_uses import KeyUses
from usage_svc.leases import Demand
from usage_svc.limit_sharing import LimitSharing
from usage_svc.log_servicer import LogKeeper
from usage_svc.rating import MAX_ID_CHARS
from usage_svc.recording import Recorder
from usage_svc.sessions import Opening, Session, SessionId, SessionState
from usage_svc.signals import Signals
from usage_svc.spending import Spending


class MeteringServicer(usage_pb2_grpc.MeteringServiceServicer):
    """See the contract for what each call promises."""

    def __init__(
        self,
        database: Database,
        recorder: Recorder,
        key_uses: KeyUses,
        funding: Funding,
        signals: Signals,
        session_ttl_s: float,
        idempotency_keys: IdempotencyKeys,
        log_keeper: LogKeeper,
    ) -> None:
        self._database, self._idempotency_keys = database, idempotency_keys
        self._recorder, self._key_uses, self._log_keeper = recorder, key_uses, log_keeper
        self._funding = funding
        self._signals = signals
        self._limit_sharing = LimitSharing(database)
        self._spending = Spending(database)
        self._ttl = duration_to_pb(session_ttl_s)

    async def OpenSession(self, request: pb.OpenSessionRequest, context: Any) -> pb.OpenSessionResponse:
        spool_uuid = bounds.spool_uuid(request.spool_uuid)
        request_id = bounds.text("request_id", request.request_id, MAX_ID_CHARS, chars_min=1)
        edge_name = bounds.text("edge_name", request.edge_name, bounds.MAX_EDGE_NAME_CHARS)
        opening = await self._database.write(
            lambda transaction: _open(transaction, spool_uuid, request_id, edge_name),
        )
        return pb.OpenSessionResponse(
            session=session_id_to_pb(opening.session.session_id),
            ttl=self._ttl,
            undrained=map(undrained_to_pb, opening.undrained),
        )

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Any) -> pb.HeartbeatResponse:
        session_id = bounds.session_id(session_id_from_pb(request.session))
        if not await write_by_script(self._database, lambda: session_store.heartbeat(session_id)):
            raise fenced(session_id)
        return pb.HeartbeatResponse(ttl=self._ttl)

    async def Acquire(self, request: pb.AcquireRequest, context: Any) -> pb.AcquireResponse:
        session_id = bounds.session_id(session_id_from_pb(request.session))
        bounds.at_most("demands", len(request.demands), bounds.MAX_DEMANDS)
        demands = [_checked(demand_from_pb(demand)) for demand in request.demands]
        grants = await self._funding.acquire(session_id, demands)
        return pb.AcquireResponse(grants=map(grant_to_pb, grants))

    async def Recall(self, request: pb.RecallRequest, context: Any) -> AsyncIterator[pb.RecallResponse]:
        session_id = bounds.session_id(session_id_from_pb(request.session))
        async with aclosing(self._signals.follow(session_id)) as hints:
            async for hint in hints:
                yield hint_to_pb(hint)

    async def RecordUsage(self, request: pb.RecordUsageRequest, context: Any) -> pb.RecordUsageResponse:
        session_id = bounds.session_id(session_id_from_pb(request.session))
        first_seq = bounds.seq("first_seq", request.first_seq)
        bounds.at_most("records", len(request.records), bounds.MAX_RECORDS)
        recorded = await self._recorder.record(
            session_id,
            first_seq,
            batch_from_pb(request.records),
            lambda index: request.records[index].SerializeToString(),
        )
        if recorded.intake is not None:
            self._key_uses.note(recorded.intake.posted)
            changes = recorded.intake.accounts.items()
            self._signals.freed([account_id for account_id, change in changes if change.available_nanousd > 0])
        return pb.RecordUsageResponse(
            next_seq=recorded.next_seq, exceptions=map(exceptional_to_pb, recorded.exceptions)
        )

    async def Seal(self, request: pb.SealRequest, context: Any) -> pb.SealResponse:
        session_id = bounds.session_id(session_id_from_pb(request.session))
        released = await self._funding.seal(session_id, bounds.seq("end_seq", request.end_seq))
        return pb.SealResponse(released_nanousd=released)

    async def AcquireSpend(self, request: pb.AcquireSpendRequest, context: Any) -> pb.AcquireSpendResponse:
        session_id = bounds.session_id(session_id_from_pb(request.session))
        bounds.at_most("demands", len(request.demands), bounds.MAX_DEMANDS)
        demands = bounds.spend_demands([spend_demand_from_pb(demand) for demand in request.demands])
        grants = await self._spending.acquire(session_id, demands)
        return pb.AcquireSpendResponse(grants=map(spend_grant_to_pb, grants))

    async def ShareLimits(self, request: pb.ShareLimitsRequest, context: Any) -> pb.ShareLimitsResponse:
        holder_id = bounds.text("holder_id", request.holder_id, MAX_ID_CHARS, chars_min=1)
        bounds.at_most("demands", len(request.demands), bounds.MAX_DEMANDS)
        demands = bounds.limit_demands([limit_demand_from_pb(demand) for demand in request.demands])
        shares = await self._limit_sharing.share(holder_id, demands)
        return pb.ShareLimitsResponse(shares=map(limit_share_to_pb, shares))

    async def AppendLogs(self, request: pb.AppendLogsRequest, context: Any) -> pb.AppendLogsResponse:
        return await self._log_keeper.append(request)

    async def ClaimIdempotencyKey(
        self, request: pb.ClaimIdempotencyKeyRequest, context: Any
    ) -> pb.ClaimIdempotencyKeyResponse:
        return claimed_to_pb(await self._idempotency_keys.claim(claim_from_pb(request)))

    async def FinishIdempotencyKey(
        self, request: pb.FinishIdempotencyKeyRequest, context: Any
    ) -> pb.FinishIdempotencyKeyResponse:
        answer = answer_from_pb(request.answer) if request.HasField("answer") else None
        await self._idempotency_keys.finish(*holder_from_pb(request), released=request.released, answer=answer)
        return pb.FinishIdempotencyKeyResponse()


async def _open(transaction: AsyncSession, spool_uuid: str, request_id: str, edge_name: str) -> Opening:
    driver, last = await session_store.lock_spool(transaction, spool_uuid)
    session = await session_store.session_opened_by(driver, spool_uuid, request_id)
    if session is None:
        session_id = SessionId(spool_uuid, last + 1)
        await session_store.open_incarnation(driver, session_id, request_id, edge_name)
        session = Session(session_id, SessionState.ALIVE, 1)
    return Opening(session, await session_store.undrained(driver, session.session_id))


def _checked(demand: Demand) -> Demand:
    bounds.text("demands.lease_id", demand.lease_id, MAX_ID_CHARS, chars_min=1)
    bounds.account_id(demand.account_id, "demands.account_id")
    bounds.seq("demands.seq", demand.seq)
    bounds.amount("demands.min_nanousd", demand.min_nanousd, least=1)
    bounds.amount("demands.want_nanousd", demand.want_nanousd)
    return demand
