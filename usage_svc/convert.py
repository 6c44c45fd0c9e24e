"""Between the contract's messages and this service's values; besides event_rows.py the only file that knows both."""

from collections.abc import Sequence
from datetime import timedelta
from operator import attrgetter

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.unknown_fields import UnknownFieldSet

from protos.usage.v1 import usage_pb2 as pb
from usage_svc.auditor import Findings
from usage_svc.event_rows import columns_from_rows, record_from_row, terms_from_bytes
from usage_svc.events import (
    EVENT_FIELDS,
    TOKEN_FIELDS,
    Batch,
    DamagedRecord,
    EventRecord,
    NewerRecord,
    PriceTerms,
    Record,
    ReturnRecord,
    UsageEvent,
)
from usage_svc.funds_store import Account
from usage_svc.intake import Exceptional
from usage_svc.key_rate import LimitDemand, LimitShare
from usage_svc.key_spend import SpendDemand, SpendGrant
from usage_svc.leases import Demand, Grant
from usage_svc.reading import Entry, FinishedRequest, UsageSums
from usage_svc.sessions import Session, SessionId, SessionSummary
from usage_svc.signals import Funds, Hint

# Before each attempt stand its tag (field 22, length-delimited) and its length, of one byte up to 127.
_ATTEMPT_HEADS = tuple(b"\xb2\x01" + bytes((length,)) for length in range(128))
# One getter for many fields costs half of naming each.
_event_fields, _token_fields = attrgetter(*EVENT_FIELDS), attrgetter(*TOKEN_FIELDS)
_new = tuple.__new__  # a named tuple's own constructor is a Python function of twice the cost


def session_id_from_pb(session: pb.Session) -> SessionId:
    return SessionId(session.spool_uuid, session.incarnation)


def session_id_to_pb(session_id: SessionId) -> pb.Session:
    return pb.Session(spool_uuid=session_id.spool_uuid, incarnation=session_id.incarnation)


def undrained_to_pb(session: Session) -> pb.UndrainedSession:
    return pb.UndrainedSession(
        session=session_id_to_pb(session.session_id),
        state=pb.SessionState.ValueType(session.state),
        next_seq=session.next_seq,
    )


def duration_to_pb(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


def moment_us_from_pb(timestamp: Timestamp) -> int:
    """Microseconds since 1970; 0 for an absent one."""
    return timestamp.seconds * 1_000_000 + timestamp.nanos // 1000


def moment_us_to_pb(moment_us: int) -> Timestamp:
    return Timestamp(seconds=moment_us // 1_000_000, nanos=moment_us % 1_000_000 * 1000)


def demand_from_pb(demand: pb.LeaseDemand) -> Demand:
    return Demand(
        lease_id=demand.lease_id,
        account_id=demand.account_id,
        seq=demand.seq,
        want_nanousd=demand.want_nanousd,
        min_nanousd=demand.min_nanousd,
        last=demand.last,
    )


def grant_to_pb(grant: Grant) -> pb.LeaseGrant:
    return pb.LeaseGrant(
        lease_id=grant.lease_id,
        seq=grant.seq,
        outcome=pb.LeaseOutcome.ValueType(grant.outcome),
        granted_nanousd=grant.granted_nanousd,
        near_limit=grant.near_limit,
        available_nanousd=grant.available_nanousd,
        granted_total_nanousd=grant.granted_total_nanousd,
        last=grant.last,
        recalled=grant.recalled,
    )


def hint_to_pb(hint: Hint | None) -> pb.RecallResponse:
    """None is the first message of a stream: it says nothing but that the stream stands."""
    if hint is None:
        return pb.RecallResponse()
    if isinstance(hint, Funds):
        return pb.RecallResponse(credited_account_id=hint.account_id)
    return pb.RecallResponse(lease_id=hint.lease_id, account_id=hint.account_id)


def batch_from_pb(records: Sequence[pb.Record]) -> Batch:
    """A call's records. Never raises, as `record_from_pb`."""
    encoded = [record.event_row for record in records]
    columns = columns_from_rows(encoded) if encoded and all(encoded) else None
    return Batch(len(encoded), columns, lambda: [record_from_pb(record) for record in records])


def record_from_pb(record: pb.Record) -> Record:
    """Never raises: what cannot be posted says why, and what a newer edge wrote says that it is newer."""
    kind = record.WhichOneof("record")
    if kind == "event_row":
        return record_from_row(record.event_row)
    if kind == "event":
        event = record.event
        terms = terms_from_bytes(event.price.SerializeToString())
        return _new(EventRecord, (_event_from_pb(event, terms.price_version), event.schema, terms))
    if kind == "lease_return":
        return ReturnRecord(record.lease_return.lease_id, record.lease_return.returned_total_nanousd)
    if kind == "unreadable":
        return DamagedRecord("UNREADABLE")
    return NewerRecord() if len(UnknownFieldSet(record)) else DamagedRecord("EMPTY_RECORD")


def _attempts_to_bytes(event: pb.UsageEvent) -> bytes:
    """The attempts as they stand in the event's own encoding, so that they can be read back as an event's."""
    attempts = event.attempts
    if len(attempts) == 1:  # nearly always; by hand, since this runs for every request
        body = attempts[0].SerializeToString()
        if len(body) < len(_ATTEMPT_HEADS):
            return _ATTEMPT_HEADS[len(body)] + body
    return pb.UsageEvent(attempts=attempts).SerializeToString()


def _event_from_pb(event: pb.UsageEvent, price_version: str) -> UsageEvent:
    admit, end = event.admit_time, event.end_time
    rest = (
        admit.seconds * 1_000_000 + admit.nanos // 1000,
        end.seconds * 1_000_000 + end.nanos // 1000,
        _attempts_to_bytes(event),
        price_version,
    )
    return _new(UsageEvent, _event_fields(event) + _token_fields(event.tokens) + rest)


def _event_to_pb(event: UsageEvent, terms: PriceTerms) -> pb.UsageEvent:
    message = pb.UsageEvent.FromString(event.attempts)  # only the attempts are kept as bytes
    message.MergeFrom(
        pb.UsageEvent(
            schema=1,
            request_id=event.request_id,
            lease_id=event.lease_id,
            account_id=event.account_id,
            key_id=event.key_id,
            model_id=event.model_id,
            deployment_id=event.deployment_id,
            resource=pb.Resource.ValueType(event.resource),
            admit_time=moment_us_to_pb(event.admit_time_us),
            end_time=moment_us_to_pb(event.end_time_us),
            status_code=event.status_code,
            streamed=event.streamed,
            outcome=pb.Outcome.ValueType(event.outcome),
            source=pb.UsageSource.ValueType(event.source),
            ending=pb.Ending.ValueType(event.ending),
            tokens=_tokens_to_pb(event),
            price=pb.PriceVector(**terms._asdict()) if terms.price_version else None,
            hold_nanousd=event.hold_nanousd,
            plausible_tokens_max=event.plausible_tokens_max,
            first_byte_ms=event.first_byte_ms,
            duration_ms=event.duration_ms,
        )
    )
    return message


def _tokens_to_pb(counts: UsageEvent | UsageSums) -> pb.TokenCounts:
    return pb.TokenCounts(
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens,
        cached_tokens=counts.cached_tokens,
        cache_write_tokens=counts.cache_write_tokens,
        reasoning_tokens=counts.reasoning_tokens,
        audio_tokens=counts.audio_tokens,
        image_tokens=counts.image_tokens,
        images=counts.images,
    )


def exceptional_to_pb(exceptional: Exceptional) -> pb.RecordException:
    return pb.RecordException(
        seq=exceptional.seq,
        outcome=pb.RecordOutcome.ValueType(exceptional.outcome),
        reason=exceptional.reason,
    )


def balance_to_pb(account: Account) -> pb.Balance:
    return pb.Balance(
        account_id=account.account_id,
        posted_nanousd=account.posted_nanousd,
        reserved_nanousd=account.reserved_nanousd,
        available_nanousd=account.available_nanousd,
        grace_nanousd=account.grace_nanousd or 0,
        credited_nanousd=account.credited_nanousd,
        charged_nanousd=account.charged_nanousd,
        refunded_nanousd=account.refunded_nanousd,
    )


def usage_row_to_pb(sums: UsageSums, *, with_period: bool) -> pb.UsageRow:
    return pb.UsageRow(
        period_start_time=moment_us_to_pb(sums.period_start_us) if with_period else None,
        model_id=sums.model_id,
        key_id=sums.key_id,
        requests=sums.requests,
        errors=sums.errors,
        tokens=_tokens_to_pb(sums),
        charged_nanousd=sums.charged_nanousd,
        refunded_nanousd=sums.refunded_nanousd,
    )


def request_to_pb(request: FinishedRequest) -> pb.RequestSummary:
    return pb.RequestSummary(
        event=_event_to_pb(request.event, request.terms),
        charged_nanousd=request.charged_nanousd,
        overflow_nanousd=request.overflow_nanousd,
        refunded_nanousd=request.refunded_nanousd,
        refunds=[
            pb.RequestRefund(
                amount_nanousd=each.amount_nanousd,
                reason=each.reason,
                create_time=moment_us_to_pb(each.create_time_us),
            )
            for each in request.refunds
        ],
    )


def entry_to_pb(entry: Entry) -> pb.Entry:
    posting = entry.posting
    return pb.Entry(
        entry_id=entry.entry_id,
        kind=pb.EntryKind.ValueType(posting.kind),
        debit_account_id=posting.debit_account_id,
        credit_account_id=posting.credit_account_id,
        amount_nanousd=posting.amount_nanousd,
        request_id=posting.request_id,
        note=posting.note,
        create_time=moment_us_to_pb(entry.create_time_us),
        overflow_nanousd=posting.overflow_nanousd,
    )


def findings_to_pb(findings: Findings) -> pb.AuditLedgerResponse:
    return pb.AuditLedgerResponse(
        accounts_checked=findings.accounts,
        leases_checked=findings.leases,
        entries_checked=findings.entries,
        violations=[
            pb.AuditViolation(invariant=each.invariant, subject=each.subject, message=each.message)
            for each in findings.violations
        ],
        requests_checked=findings.events,
        requests_rated=findings.rated,
        snapshot_time=moment_us_to_pb(findings.time_us),
        open_leases=findings.open_leases,
        credited_nanousd=findings.credited_nanousd,
        charged_nanousd=findings.charged_nanousd,
        available_nanousd=findings.available_nanousd,
        reserved_nanousd=findings.reserved_nanousd,
        overflow_nanousd=findings.overflow_nanousd,
        overdraft_max_nanousd=findings.overdraft_max_nanousd,
    )


def limit_demand_from_pb(demand: pb.LimitDemand) -> LimitDemand:
    return LimitDemand(*(getattr(demand, name) for name in LimitDemand._fields))


def limit_share_to_pb(share: LimitShare) -> pb.LimitShare:
    return pb.LimitShare(**share._asdict())


def session_summary_to_pb(summary: SessionSummary) -> pb.SessionSummary:
    return pb.SessionSummary(
        session=session_id_to_pb(summary.session_id),
        edge_name=summary.edge_name,
        state=pb.SessionState.ValueType(summary.state),
        next_seq=summary.next_seq,
        reserved_nanousd=summary.reserved_nanousd,
        create_time=moment_us_to_pb(summary.create_time_us),
        heartbeat_time=moment_us_to_pb(summary.heartbeat_time_us),
    )


def spend_demand_from_pb(demand: pb.SpendDemand) -> SpendDemand:
    return SpendDemand(*(getattr(demand, name) for name in SpendDemand._fields))


def spend_grant_to_pb(grant: SpendGrant) -> pb.SpendGrant:
    return pb.SpendGrant(
        key_id=grant.key_id,
        period_id=grant.period_id,
        outcome=pb.LeaseOutcome.ValueType(grant.outcome),
        granted_total_nanousd=grant.granted_total_nanousd,
        near_limit=grant.near_limit,
        spent_nanousd=grant.spent_nanousd,
    )
