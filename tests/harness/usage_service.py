"""usage_svc inside the test's own process, behind real gRPC, over a real database; an edge's side of it; an audit."""

import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uuid_utils
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import text

from chassis import client
from chassis.database import Database, open_engine
from chassis.lifetime import Lifetime
from chassis.server import RpcServer, Serving
from edge.metering.usage_event import Attempt, UsageEvent, encode_event
from protos.usage.v1 import usage_pb2 as pb
from protos.usage.v1 import usage_pb2_grpc as rpc
from tests.harness.databases import migrate
from usage_svc import migrations
from usage_svc.servicer import open_servicers
from usage_svc.settings import UsageSettings

CALL_TIMEOUT_S = 30.0
USD = 1_000_000_000
PRICE = pb.PriceVector(
    price_version="price-1", prompt="0.000001", completion="0.000002", input_cache_read="0.0000005", image="0.01"
)

# What an audit replays: accounts, leases, entries, events.
_AUDITED = (
    "SELECT account_id, available_nanousd, COALESCE(grace_nanousd, 0), overflow_nanousd, credited_nanousd, "
    "charged_nanousd, refunded_nanousd FROM account",
    "SELECT account_id, granted_nanousd, settled_nanousd, returned_nanousd, closed FROM lease",
    "SELECT kind, account_id, debit_account_id, credit_account_id, amount_nanousd, request_id FROM entry",
    "SELECT request_id, account_id, charged_nanousd, outcome, refunded_nanousd FROM usage_event",
)


def new_id() -> str:
    """A UUIDv7: a request id, a lease id."""
    return str(uuid_utils.uuid7())


def event(
    account_id: str,
    lease_id: str = "",
    *,
    prompt: int = 100,
    completion: int = 50,
    hold: int = USD,
    end_time_s: int | None = None,
    **values: Any,
) -> pb.UsageEvent:
    """A measured request that costs prompt * 1000 + completion * 2000 nano-USD. `values` replace fields."""
    request_id = values.pop("request_id", None) or new_id()
    now_s = int(request_id.replace("-", "")[:12], 16) // 1000 if end_time_s is None else end_time_s
    price = values.pop("price", PRICE)
    tokens = values.pop("tokens", None) or pb.TokenCounts(prompt_tokens=prompt, completion_tokens=completion)
    fields: dict[str, Any] = {
        "schema": 1,
        "request_id": request_id,
        "lease_id": lease_id,
        "account_id": account_id,
        "key_id": "key-1",
        "model_id": "some/model",
        "deployment_id": "deployment-1",
        "resource": pb.RESOURCE_CHAT_COMPLETIONS,
        "admit_time": Timestamp(seconds=now_s - 1),
        "end_time": Timestamp(seconds=now_s),
        "status_code": 200,
        "streamed": True,
        "outcome": pb.OUTCOME_MEASURED,
        "source": pb.USAGE_SOURCE_UPSTREAM_FINAL,
        "ending": pb.ENDING_COMPLETED,
        "hold_nanousd": hold,
        "plausible_tokens_max": 1_000_000,
        "first_byte_ms": 12,
        "duration_ms": 345,
        "attempts": [pb.Attempt(deployment_id="deployment-1", status_code=200, duration_ms=340)],
        **values,
    }
    return pb.UsageEvent(tokens=tokens, price=price, **fields)


def uncharged(account_id: str, outcome: "pb.Outcome.ValueType", **values: Any) -> pb.UsageEvent:
    """An event of an outcome that is not charged."""
    return event(
        account_id,
        **{
            "outcome": outcome,
            "source": pb.USAGE_SOURCE_NONE,
            "ending": pb.ENDING_UPSTREAM_FAILED,
            "status_code": 502,
            "prompt": 0,
            "completion": 0,
            **values,
        },
    )


def spooled(message: pb.UsageEvent) -> UsageEvent:
    """The same event as an edge of ours writes it."""
    fields: dict[str, Any] = {}
    for part in (message, message.tokens):
        names = part.DESCRIPTOR.fields_by_name
        fields |= {name: getattr(part, name) for name in UsageEvent.__struct_fields__ if name in names}
    fields["price"] = message.price.SerializeToString()
    fields["attempts"] = [
        Attempt(each.deployment_id, each.status_code, each.failure, each.duration_ms) for each in message.attempts
    ]
    for name in ("admit_time", "end_time"):
        fields[f"{name}_us"] = getattr(message, name).ToMicroseconds()
    return UsageEvent(**fields)


@dataclass(slots=True)
class Edge:
    """An edge's side of the protocol: a spool of records and its session. Ships when told to."""

    service: "UsageService"
    session: pb.Session
    undrained: Sequence[pb.UndrainedSession]
    records: list[pb.Record] = field(default_factory=list)
    next_seq: int = 1
    _demand_seqs: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    async def acquire(
        self, account_id: str, want: int, least: int = 1, *, lease_id: str = "", seq: int = 0
    ) -> pb.LeaseGrant:
        lease_id = lease_id or new_id()
        self._demand_seqs[lease_id] = seq or self._demand_seqs[lease_id] + 1
        demand = pb.LeaseDemand(
            lease_id=lease_id,
            account_id=account_id,
            seq=self._demand_seqs[lease_id],
            want_nanousd=want,
            min_nanousd=least,
        )
        answer: pb.AcquireResponse = await self.service.call(
            self.service.metering.Acquire, pb.AcquireRequest(session=self.session, demands=[demand])
        )
        return answer.grants[0]

    def spool(self, *records: pb.UsageEvent | UsageEvent | pb.LeaseReturn | bytes) -> None:
        for record in records:
            if isinstance(record, pb.UsageEvent):  # as edges of before there were rows
                self.records.append(pb.Record(event=record))
            elif isinstance(record, UsageEvent):
                self.records.append(pb.Record(event_row=encode_event(record)))
            elif isinstance(record, pb.LeaseReturn):
                self.records.append(pb.Record(lease_return=record))
            else:
                self.records.append(pb.Record(unreadable=record))

    async def send(self, first_seq: int, records: Sequence[pb.Record]) -> pb.RecordUsageResponse:
        request = pb.RecordUsageRequest(session=self.session, first_seq=first_seq, records=records)
        answer: pb.RecordUsageResponse = await self.service.call(self.service.metering.RecordUsage, request)
        return answer

    async def ship(self) -> pb.RecordUsageResponse:
        """Sends what usage_svc does not have yet."""
        answer = await self.send(self.next_seq, self.records[self.next_seq - 1 :])
        self.next_seq = answer.next_seq
        return answer

    async def seal(self, end_seq: int = 0) -> int:
        request = pb.SealRequest(session=self.session, end_seq=end_seq or len(self.records) + 1)
        answer: pb.SealResponse = await self.service.call(self.service.metering.Seal, request)
        return answer.released_nanousd

    async def heartbeat(self) -> None:
        await self.service.call(self.service.metering.Heartbeat, pb.HeartbeatRequest(session=self.session))


@dataclass(frozen=True, slots=True)
class UsageService:
    """A running usage_svc and the calls that tests make."""

    port: int
    metering: "rpc.MeteringServiceAsyncStub"  # in the stubs only
    reading: "rpc.UsageServiceAsyncStub"
    admin: "rpc.UsageAdminServiceAsyncStub"
    logs: "rpc.LogServiceAsyncStub"
    database: Database

    async def call(self, method: Any, request: Any) -> Any:
        return await client.call(method, request, timeout_s=CALL_TIMEOUT_S)

    async def open_edge(self, spool_uuid: str = "", request_id: str = "") -> Edge:
        request = pb.OpenSessionRequest(
            request_id=request_id or new_id(), spool_uuid=spool_uuid or str(uuid.uuid4()), edge_name="test"
        )
        answer: pb.OpenSessionResponse = await self.call(self.metering.OpenSession, request)
        return Edge(self, answer.session, answer.undrained)

    async def credit(self, account_id: str, amount: int, **values: Any) -> pb.Balance:
        request = pb.GrantCreditRequest(
            **{"request_id": new_id(), "account_id": account_id, "amount_nanousd": amount, **values}
        )
        answer: pb.GrantCreditResponse = await self.call(self.admin.GrantCredit, request)
        return answer.balance

    async def adjust(self, account_id: str, amount: int, *, force: bool = False) -> pb.Balance:
        request = pb.AdjustRequest(
            request_id=new_id(), account_id=account_id, amount_nanousd=amount, force=force, note="a reason"
        )
        answer: pb.AdjustResponse = await self.call(self.admin.Adjust, request)
        return answer.balance

    async def refund(self, charged_request_id: str, amount: int = 0, **values: Any) -> pb.RefundResponse:
        request = pb.RefundRequest(
            **{
                "request_id": new_id(),
                "account_id": "acme",
                "charged_request_id": charged_request_id,
                "amount_nanousd": amount,
                "reason": "an outage of ours",
                **values,
            }
        )
        answer: pb.RefundResponse = await self.call(self.admin.Refund, request)
        return answer

    async def set_grace(self, account_id: str, grace: int) -> pb.Balance:
        request = pb.SetTermsRequest(request_id=new_id(), account_id=account_id, grace_nanousd=grace)
        answer: pb.SetTermsResponse = await self.call(self.admin.SetTerms, request)
        return answer.balance

    async def balance(self, account_id: str) -> pb.Balance:
        answer: pb.GetBalanceResponse = await self.call(
            self.reading.GetBalance, pb.GetBalanceRequest(account_id=account_id)
        )
        return answer.balance

    async def usage(self, account_id: str, *group_by: "pb.UsageGrouping.ValueType", **values: Any) -> list[pb.UsageRow]:
        request = pb.QueryUsageRequest(account_id=account_id, group_by=group_by, **values)
        answer: pb.QueryUsageResponse = await self.call(self.reading.QueryUsage, request)
        return list(answer.rows)

    async def rows(self, sql: str) -> list[Any]:
        """What stands in the database."""
        async with self.database.read() as transaction:
            connection = await transaction.connection()
            return list((await connection.execute(text(sql))).all())

    async def audit_rpc(self) -> pb.AuditLedgerResponse:
        """What usage_svc's own auditor says; fails where it finds a violation."""
        findings: pb.AuditLedgerResponse = await self.call(self.admin.AuditLedger, pb.AuditLedgerRequest())
        assert not findings.violations, findings.violations
        return findings

    async def audit(self) -> None:
        """Fails unless I1, I4 and I5 hold for everything that is committed, by replay from the first entry.

        Sums for itself, and asks usage_svc's own auditor too.
        """
        await self.audit_rpc()
        async with self.database.snapshot() as transaction:  # edges may still be recording
            connection = await transaction.connection()
            accounts, leases, entries, events = [list((await connection.execute(text(sql))).all()) for sql in _AUDITED]
        balances: dict[str, int] = defaultdict(int)
        charges: dict[str, int] = defaultdict(int)
        for _, account_id, debit, credit, amount, _ in entries:
            assert amount > 0
            assert account_id in (debit, credit)
            balances[debit] -= amount
            balances[credit] += amount
        assert sum(balances.values()) == 0, "the ledger does not sum to zero"
        reserved: dict[str, int] = defaultdict(int)
        settled: dict[str, int] = defaultdict(int)
        for account_id, granted, spent, returned, closed in leases:
            assert 0 <= spent + returned <= granted, "a lease gave more than it had"
            assert min(spent, returned) >= 0
            reserved[account_id] += granted - spent - returned
            settled[account_id] += 0 if closed else spent
            assert not closed or granted == spent + returned, "a closed lease reserves something"
        for kind, _, _, _, amount, request_id in entries:
            if kind == pb.ENTRY_KIND_CHARGE:
                assert request_id not in charges, "a request was charged twice"
                charges[request_id] = amount
        charged: dict[str, int] = defaultdict(int)
        refunds: dict[str, int] = defaultdict(int)
        refunds_by_request: dict[str, int] = defaultdict(int)
        for kind, account_id, _, _, amount, request_id in entries:
            if kind == pb.ENTRY_KIND_WAIVER:
                refunds[account_id] += amount
                refunds_by_request[request_id] += amount
        for request_id, account_id, amount, outcome, refunded in events:
            assert refunded == refunds_by_request[request_id] <= amount, "more was given back than was charged"
            assert charges.pop(request_id, 0) == amount, "an event and its charge differ"
            assert amount == 0 or outcome in (pb.OUTCOME_MEASURED, pb.OUTCOME_ESTIMATED)
            charged[account_id] += amount
        assert not charges, "a charge has no event"
        for account_id, available, grace, overflow, credited, folded, refunded in accounts:
            assert available >= -grace - overflow, f"I1 does not hold for {account_id}"
            assert available + reserved[account_id] == balances[account_id], f"I4 does not hold for {account_id}"
            assert folded + settled[account_id] == charged[account_id], f"{account_id} is not charged its events' sum"
            assert credited >= 0
            assert refunded == refunds[account_id], f"{account_id} was not given back what its ledger says"


@asynccontextmanager
async def usage_service(database_url: str, **values: Any) -> AsyncIterator[UsageService]:
    """Migrates the database and serves for as long as the block lasts. `values` are settings."""
    configured = UsageSettings(**{"database_url": database_url, "drain_s": 2.0, **values})
    await migrate(database_url, migrations)
    lifetime = Lifetime()
    async with (
        Database(open_engine(database_url)) as database,
        open_servicers(configured, database, lifetime) as servicers,
        RpcServer(servicers, Serving(drain_s=configured.drain_s)) as server,
        client.channel(f"127.0.0.1:{server.port}") as channel,
    ):
        try:
            yield UsageService(
                server.port,
                rpc.MeteringServiceStub(channel),
                rpc.UsageServiceStub(channel),
                rpc.UsageAdminServiceStub(channel),
                rpc.LogServiceStub(channel),
                database,
            )
        finally:
            lifetime.stop()  # after a failure too: it ends open streams, which the server would wait for
        assert lifetime.failure is None, lifetime.failure
