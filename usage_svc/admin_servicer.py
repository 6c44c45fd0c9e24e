"""For operators, on the wire: moving money and setting terms."""

# ruff: noqa: N802 - the contract names these methods

from datetime import UTC, datetime
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from chassis.clock import Clock
from chassis.database import Database
from chassis.faults import FailedPrecondition, InvalidArgument
from chassis.once import once
from protos.usage.v1 import usage_pb2 as pb
from protos.usage.v1 import usage_pb2_grpc
from usage_svc import bounds, funds_store, ledger, refunding, session_store
from usage_svc.auditor import Auditor
from usage_svc.convert import balance_to_pb, findings_to_pb, session_id_from_pb, session_summary_to_pb
from usage_svc.driver import attach
from usage_svc.funding import Funding
from usage_svc.ledger import EntryKind
from usage_svc.rating import MAX_ID_CHARS
from usage_svc.signals import Signals
from usage_svc.tables import FinishedWriteRow

DEFAULT_SESSIONS = 100
MAX_SESSIONS = 1000

_CREDIT_KINDS = {
    pb.ENTRY_KIND_UNSPECIFIED: EntryKind.CREDIT,
    pb.ENTRY_KIND_CREDIT: EntryKind.CREDIT,
    pb.ENTRY_KIND_PROMOTION: EntryKind.PROMOTION,
}


class AdminServicer(usage_pb2_grpc.UsageAdminServiceServicer):
    """See the contract for what each call promises. A repeat of any write returns its first answer."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        default_grace_nanousd: int,
        auditor: Auditor,
        funding: Funding,
        signals: Signals,
    ) -> None:
        self._database = database
        self._clock = clock
        self._default_grace_nanousd = default_grace_nanousd
        self._auditor = auditor
        self._funding = funding
        self._signals = signals

    async def GrantCredit(self, request: pb.GrantCreditRequest, context: Any) -> pb.GrantCreditResponse:
        account_id = bounds.account_id(request.account_id)
        amount = bounds.amount("amount_nanousd", request.amount_nanousd, least=1)
        note = bounds.text("note", request.note, bounds.MAX_NOTE_CHARS)
        kind = _CREDIT_KINDS.get(request.kind)
        if kind is None:
            raise InvalidArgument("kind", "give CREDIT or PROMOTION; other kinds are not credits")

        async def grant(transaction: AsyncSession) -> pb.GrantCreditResponse:
            driver = await attach(transaction)
            account = await funds_store.lock_account(driver, account_id)
            bounds.total("amount_nanousd", account.available_nanousd + amount)
            if kind is EntryKind.CREDIT and account.grace_nanousd is None:
                # Grace is for those who have paid once: a gift alone does not open it.
                await funds_store.set_terms(driver, account_id, self._default_grace_nanousd, account.overflow_nanousd)
            await funds_store.add_to_account(driver, account_id, amount, amount, 0)
            await funds_store.append_entry(driver, ledger.posting(kind, account_id, amount, note=note))
            return pb.GrantCreditResponse(balance=balance_to_pb(await funds_store.account(driver, account_id)))

        answer = await self._database.write(
            lambda transaction: once(
                transaction,
                FinishedWriteRow,
                request,
                pb.GrantCreditResponse,
                self._now(),
                lambda: grant(transaction),
            )
        )
        self._signals.funds(account_id)  # edges forget that they refused it
        return answer

    async def Adjust(self, request: pb.AdjustRequest, context: Any) -> pb.AdjustResponse:
        account_id = bounds.account_id(request.account_id)
        change = request.amount_nanousd
        if change == 0:
            raise InvalidArgument("amount_nanousd", "0 changes nothing")
        bounds.amount("amount_nanousd", abs(change))
        note = bounds.text("note", request.note, bounds.MAX_NOTE_CHARS, chars_min=1)

        async def adjust(transaction: AsyncSession) -> pb.AdjustResponse:
            driver = await attach(transaction)
            account = await funds_store.lock_account(driver, account_id)
            bounds.total("amount_nanousd", account.available_nanousd + change)
            overflow = 0
            if change < 0:
                verdict = ledger.debit(
                    account.available_nanousd, account.grace_nanousd or 0, -change, force=request.force
                )
                if not verdict.allowed:
                    raise FailedPrecondition(
                        "INSUFFICIENT_FUNDS",
                        f"only {account.headroom_nanousd} nano-USD can be taken from {account_id!r}, its grace "
                        "included and leases left out: take less, or force it",
                    )
                overflow = verdict.overflow_nanousd
            await funds_store.add_to_account(driver, account_id, change, 0, overflow)
            posting = ledger.posting(EntryKind.ADJUSTMENT, account_id, change, overflow_nanousd=overflow, note=note)
            await funds_store.append_entry(driver, posting)
            return pb.AdjustResponse(balance=balance_to_pb(await funds_store.account(driver, account_id)))

        answer = await self._database.write(
            lambda transaction: once(
                transaction, FinishedWriteRow, request, pb.AdjustResponse, self._now(), lambda: adjust(transaction)
            )
        )
        self._signals.funds(account_id)  # edges forget that they refused it
        return answer

    async def SetTerms(self, request: pb.SetTermsRequest, context: Any) -> pb.SetTermsResponse:
        account_id = bounds.account_id(request.account_id)
        grace = bounds.amount("grace_nanousd", request.grace_nanousd)

        async def set_terms(transaction: AsyncSession) -> pb.SetTermsResponse:
            driver = await attach(transaction)
            account = await funds_store.lock_account(driver, account_id)
            overflow = ledger.overflow_of_terms(account.available_nanousd, account.overflow_nanousd, grace)
            await funds_store.set_terms(driver, account_id, grace, overflow)
            return pb.SetTermsResponse(balance=balance_to_pb(await funds_store.account(driver, account_id)))

        answer = await self._database.write(
            lambda transaction: once(
                transaction, FinishedWriteRow, request, pb.SetTermsResponse, self._now(), lambda: set_terms(transaction)
            )
        )
        self._signals.funds(account_id)  # edges forget that they refused it
        return answer

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Any) -> pb.ListSessionsResponse:
        if not 0 <= request.page_size <= MAX_SESSIONS:
            raise InvalidArgument("page_size", f"give 1 to {MAX_SESSIONS}, or 0 for {DEFAULT_SESSIONS}")
        async with self._database.read() as transaction:
            found = await session_store.open_sessions(transaction, request.page_size or DEFAULT_SESSIONS)
        return pb.ListSessionsResponse(sessions=map(session_summary_to_pb, found))

    async def ForceSession(self, request: pb.ForceSessionRequest, context: Any) -> pb.ForceSessionResponse:
        session_id = bounds.session_id(session_id_from_pb(request.session))
        return pb.ForceSessionResponse(released_nanousd=await self._funding.force(session_id))

    async def Refund(self, request: pb.RefundRequest, context: Any) -> pb.RefundResponse:
        bounds.account_id(request.account_id)
        bounds.text("charged_request_id", request.charged_request_id, MAX_ID_CHARS, chars_min=1)
        bounds.amount("amount_nanousd", request.amount_nanousd)
        bounds.text("reason", request.reason, bounds.MAX_NOTE_CHARS, chars_min=1)

        async def refund(transaction: AsyncSession) -> pb.RefundResponse:
            # Before it is looked whether this is a repeat: of two at once the second must find the first one's answer.
            account = await refunding.lock_account(transaction, request.account_id)
            return await once(
                transaction,
                FinishedWriteRow,
                request,
                pb.RefundResponse,
                self._now(),
                lambda: refunding.refund(transaction, request, account),
            )

        answer = await self._database.write(refund)
        self._signals.funds(request.account_id)
        return answer

    async def AuditLedger(self, request: pb.AuditLedgerRequest, context: Any) -> pb.AuditLedgerResponse:
        account_id = bounds.account_id(request.account_id) if request.account_id else ""
        return findings_to_pb(await self._auditor.audit(account_id))

    def _now(self) -> datetime:
        return self._clock.now().astimezone(UTC)
