"""usage_svc running, with a request of every one of its methods that it answers."""

import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from protos.usage.v1 import usage_pb2
from tests.harness.plants import Good
from tests.harness.usage_service import Edge, event, new_id, usage_service


@asynccontextmanager
async def usage_plant(url: str) -> AsyncIterator[tuple[int, Mapping[str, Good]]]:
    """usage_svc's port, and its requests by their methods' full names. The account is "acme"."""
    pb = usage_pb2
    async with usage_service(url) as service:
        await service.credit("acme", 10**15)
        edge = await service.open_edge()

        async def charged(count: int = 1) -> tuple[Edge, str]:
            """An edge that has shipped a request, and the request's id."""
            shipping = await service.open_edge()
            lease = await shipping.acquire("acme", 10**9)
            events = [event("acme", lease.lease_id) for _ in range(count)]
            shipping.spool(*events)
            await shipping.ship()
            return shipping, events[-1].request_id

        _, request_id = await charged(3)
        now_s = int(time.time())

        def log(**values: Any) -> usage_pb2.Log:
            return pb.Log(
                **{
                    "request_id": new_id(),
                    "account_id": "acme",
                    "key_id": "key-1",
                    "input": b"{}",
                    "output": b"{}",
                    "expire_time": Timestamp(seconds=now_s + 86_400),
                    "model_id": "some/model",
                    "resource": pb.RESOURCE_CHAT_COMPLETIONS,
                    "status_code": 200,
                    "end_time": Timestamp(seconds=now_s),
                    "output_raw": b"data: {}",
                    "input_bytes": 2,
                    "output_bytes": 2,
                    **values,
                }
            )

        async def kept() -> str:
            one = log()
            await service.call(service.metering.AppendLogs, pb.AppendLogsRequest(logs=[one]))
            return one.request_id

        kept_id = await kept()

        async def open_session() -> Message:
            return pb.OpenSessionRequest(request_id=new_id(), spool_uuid=str(uuid.uuid4()), edge_name="test")

        async def heartbeat() -> Message:
            return pb.HeartbeatRequest(session=edge.session)

        async def acquire() -> Message:
            demand = pb.LeaseDemand(lease_id=new_id(), account_id="acme", seq=1, want_nanousd=1000, min_nanousd=1)
            return pb.AcquireRequest(session=edge.session, demands=[demand])

        async def recall() -> Message:
            return pb.RecallRequest(session=edge.session)

        async def record() -> Message:
            shipping = await service.open_edge()
            lease = await shipping.acquire("acme", 10**9)
            records = [
                pb.Record(event=event("acme", lease.lease_id)),
                pb.Record(lease_return=pb.LeaseReturn(lease_id=lease.lease_id, returned_total_nanousd=1)),
            ]
            return pb.RecordUsageRequest(session=shipping.session, first_seq=1, records=records)

        async def seal() -> Message:
            return pb.SealRequest(session=(await charged())[0].session, end_seq=2)

        async def acquire_spend() -> Message:
            demand = pb.SpendDemand(
                account_id="acme",
                key_id=new_id(),
                period_id=time.strftime("%Y-%m", time.gmtime()),
                limit_nanousd=10**9,
                seq=1,
                want_nanousd=1000,
                min_nanousd=1,
            )
            return pb.AcquireSpendRequest(session=edge.session, demands=[demand])

        async def share_limits() -> Message:
            demand = pb.LimitDemand(
                key_id=new_id(),
                seq=1,
                requests_per_minute=60,
                tokens_per_minute=1000,
                concurrent_requests=5,
                want_requests=1,
                want_tokens=100,
                min_tokens=1,
                want_slots=1,
            )
            return pb.ShareLimitsRequest(holder_id="holder", demands=[demand])

        async def append_logs() -> Message:
            return pb.AppendLogsRequest(logs=[log()])

        def claim(key: str) -> usage_pb2.ClaimIdempotencyKeyRequest:
            return pb.ClaimIdempotencyKeyRequest(
                session=edge.session,
                account_id="acme",
                idempotency_key=key,
                request_sha256=bytes(32),
                request_id=new_id(),
            )

        async def claim_key() -> Message:
            return claim(new_id())

        async def finish_key() -> Message:
            claimed = claim(new_id())
            await service.call(service.metering.ClaimIdempotencyKey, claimed)
            return pb.FinishIdempotencyKeyRequest(
                account_id="acme",
                idempotency_key=claimed.idempotency_key,
                request_id=claimed.request_id,
                answer=pb.StoredAnswer(status_code=200, content_type="application/json", body=b"{}"),
            )

        span: dict[str, Any] = {
            "start_time": Timestamp(seconds=now_s - 86_400),
            "end_time": Timestamp(seconds=now_s + 86_400),
        }

        async def list_logs() -> Message:
            return pb.ListLogsRequest(account_id="acme", page_size=2, after_request_id=kept_id, **span)

        async def get_log() -> Message:
            return pb.GetLogRequest(account_id="acme", request_id=kept_id)

        async def delete_log() -> Message:
            return pb.DeleteLogRequest(account_id="acme", request_id=await kept())

        async def delete_logs() -> Message:
            return pb.DeleteLogsRequest(account_id="another", **span)

        async def get_balance() -> Message:
            return pb.GetBalanceRequest(account_id="acme")

        async def query_usage() -> Message:
            return pb.QueryUsageRequest(account_id="acme", group_by=[pb.USAGE_GROUPING_DAY], key_id="key-1", **span)

        async def list_requests() -> Message:
            return pb.ListRequestsRequest(account_id="acme", page_size=1, after_request_id=request_id, **span)

        async def get_request() -> Message:
            return pb.GetRequestRequest(account_id="acme", request_id=request_id)

        async def list_key_uses() -> Message:
            return pb.ListKeyUsesRequest(account_id="acme", key_ids=["key-1"])

        async def list_entries() -> Message:
            return pb.ListEntriesRequest(account_id="acme", page_size=1)

        async def grant_credit() -> Message:
            return pb.GrantCreditRequest(
                request_id=new_id(), account_id="acme", amount_nanousd=1, kind=pb.ENTRY_KIND_CREDIT, note="a note"
            )

        async def adjust() -> Message:
            return pb.AdjustRequest(request_id=new_id(), account_id="acme", amount_nanousd=-1, note="a note")

        async def set_terms() -> Message:
            return pb.SetTermsRequest(request_id=new_id(), account_id="acme", grace_nanousd=1)

        async def refund() -> Message:
            return pb.RefundRequest(
                request_id=new_id(),
                account_id="acme",
                charged_request_id=(await charged())[1],
                amount_nanousd=1,
                reason="an outage of ours",
            )

        async def list_sessions() -> Message:
            return pb.ListSessionsRequest(page_size=2)

        async def force_session() -> Message:
            lost = await service.open_edge()
            await service.open_edge(lost.session.spool_uuid)
            return pb.ForceSessionRequest(session=lost.session)

        async def audit_ledger() -> Message:
            return pb.AuditLedgerRequest(account_id="acme")

        metering, logs, reading, admin = (
            f"tollgate.usage.v1.{name}"
            for name in ("MeteringService", "LogService", "UsageService", "UsageAdminService")
        )
        yield (
            service.port,
            {
                f"{metering}.OpenSession": open_session,
                f"{metering}.Heartbeat": heartbeat,
                f"{metering}.Acquire": acquire,
                f"{metering}.Recall": recall,
                f"{metering}.RecordUsage": record,
                f"{metering}.Seal": seal,
                f"{metering}.AcquireSpend": acquire_spend,
                f"{metering}.ShareLimits": share_limits,
                f"{metering}.AppendLogs": append_logs,
                f"{metering}.ClaimIdempotencyKey": claim_key,
                f"{metering}.FinishIdempotencyKey": finish_key,
                f"{logs}.ListLogs": list_logs,
                f"{logs}.GetLog": get_log,
                f"{logs}.DeleteLog": delete_log,
                f"{logs}.DeleteLogs": delete_logs,
                f"{reading}.GetBalance": get_balance,
                f"{reading}.QueryUsage": query_usage,
                f"{reading}.ListRequests": list_requests,
                f"{reading}.GetRequest": get_request,
                f"{reading}.ListKeyUses": list_key_uses,
                f"{reading}.ListEntries": list_entries,
                f"{admin}.GrantCredit": grant_credit,
                f"{admin}.Adjust": adjust,
                f"{admin}.SetTerms": set_terms,
                f"{admin}.Refund": refund,
                f"{admin}.ListSessions": list_sessions,
                f"{admin}.ForceSession": force_session,
                f"{admin}.AuditLedger": audit_ledger,
            },
        )
