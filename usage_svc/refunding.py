"""Giving a request's charge back, whole or in part: one more pair in the ledger, never a change of the first."""

from sqlmodel.ext.asyncio.session import AsyncSession

from chassis.faults import FailedPrecondition, NotFound
from protos.usage.v1 import usage_pb2 as pb
from usage_svc import bounds, funds_store, ledger, reading_store
from usage_svc.convert import balance_to_pb, request_to_pb
from usage_svc.driver import Command, Driver, attach, open_with
from usage_svc.funds_store import Account
from usage_svc.ledger import EntryKind
from usage_svc.rating import day_of
from usage_svc.reading import FinishedRequest


def not_found() -> NotFound:
    """What is said of a request that the account does not have."""
    return NotFound("REQUEST_NOT_FOUND", "no request with this id has been posted for this account")


def amount_to_refund(request: FinishedRequest, wanted_nanousd: int) -> int:
    """How much is given back now; of 0 all that is left.

    Raises:
        FailedPrecondition: more than that, or nothing is left (REFUND_TOO_LARGE).
    """
    left = request.charged_nanousd - request.refunded_nanousd
    if not 0 < (wanted_nanousd or left) <= left:
        raise FailedPrecondition(
            "REFUND_TOO_LARGE",
            f"{request.charged_nanousd} nano-USD were charged for this request and {request.refunded_nanousd} given "
            f"back: {left} can be",
        )
    return wanted_nanousd or left


async def lock_account(transaction: AsyncSession, account_id: str) -> Account:
    """Locks an account as the first thing of a transaction: its refunds are judged one by one."""
    driver, _ = await open_with(transaction, "SELECT 1")
    return await funds_store.lock_account(driver, account_id)


async def refund(transaction: AsyncSession, request: pb.RefundRequest, account: Account) -> pb.RefundResponse:
    """Posts a refund for an account that is locked. See the contract for what it promises."""
    account_id, request_id = request.account_id, request.charged_request_id
    day = day_of(request_id)
    driver = await attach(transaction)
    found = None if day is None else await reading_store.request(driver, account_id, day, request_id)
    if found is None or day is None:
        raise not_found()
    amount = amount_to_refund(found, request.amount_nanousd)
    bounds.total("amount_nanousd", account.available_nanousd + amount)
    await funds_store.add_to_account(driver, account_id, amount, 0, 0)
    await _note(driver, account_id, day, request_id, amount)
    await funds_store.append_entry(
        driver, ledger.posting(EntryKind.WAIVER, account_id, amount, request_id=request_id, note=request.reason)
    )
    after = await reading_store.request(driver, account_id, day, request_id)
    assert after is not None  # it is locked by its account
    return pb.RefundResponse(
        refunded_nanousd=amount,
        request=request_to_pb(after),
        balance=balance_to_pb(await funds_store.account(driver, account_id)),
    )


async def _note(driver: Driver, account_id: str, day: int, request_id: str, amount_nanousd: int) -> None:
    await driver.execute_each(
        Command(
            "UPDATE account SET refunded_nanousd = refunded_nanousd + CAST($2 AS bigint) WHERE account_id = $1",
            [(account_id, amount_nanousd)],
        ),
        Command(
            "UPDATE usage_event SET refunded_nanousd = refunded_nanousd + CAST($3 AS bigint) "
            "WHERE day = $1 AND request_id = $2",
            [(day, request_id, amount_nanousd)],
        ),
    )
