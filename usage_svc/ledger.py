"""The ledger's rules: every movement of money is one balanced pair, so nothing is made or lost."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

ENTRIES_PER_BATCH = 1000  # entry ids are numbered within their batch: batch_id * this + position
MAX_AMOUNT_NANOUSD = 10**18  # a billion USD in one movement; nine of them still fit an int64 balance


class House(StrEnum):
    """Ledger accounts of the operator. They store no running balance: a row that every charge touches is a hot row."""

    CASH = "cash"
    PROMO_EXPENSE = "promo_expense"
    REVENUE = "revenue"
    WAIVER_EXPENSE = "waiver_expense"
    BREAKAGE = "breakage"
    WRITEOFF = "writeoff"
    ADJUSTMENT = "adjustment"


HOUSE_ACCOUNT_IDS = frozenset(house.value for house in House)


class EntryKind(IntEnum):
    """Why money moved; the numbers are the contract's."""

    CREDIT = 1
    PROMOTION = 2
    CHARGE = 3
    WAIVER = 4
    BREAKAGE = 5
    WRITEOFF = 6
    ADJUSTMENT = 7


_HOUSE_OF = {
    EntryKind.CREDIT: House.CASH,
    EntryKind.PROMOTION: House.PROMO_EXPENSE,
    EntryKind.CHARGE: House.REVENUE,
    EntryKind.WAIVER: House.WAIVER_EXPENSE,
    EntryKind.BREAKAGE: House.BREAKAGE,
    EntryKind.WRITEOFF: House.WRITEOFF,
    EntryKind.ADJUSTMENT: House.ADJUSTMENT,
}
_TAKES_FROM_CUSTOMER = frozenset({EntryKind.CHARGE, EntryKind.BREAKAGE})


class Posting(NamedTuple):
    """One balanced pair: `amount_nanousd` leaves `debit_account_id` and reaches `credit_account_id`.

    It sums to zero because it is one row with one amount, not because somebody checks it. `account_id` is whichever of
    the two is the customer's. `overflow_nanousd` is the part of the amount that crossed what was reserved or allowed.
    In the order of the table's columns. A charge is none of these: it is the request's own row, whose account pays
    `charged_nanousd` to revenue (usage_svc/ledger_view.py shows both as entries).
    """

    kind: int
    account_id: str
    debit_account_id: str
    credit_account_id: str
    amount_nanousd: int
    overflow_nanousd: int = 0
    request_id: str = ""
    note: str = ""


def posting(
    kind: EntryKind,
    account_id: str,
    change_nanousd: int,
    *,
    overflow_nanousd: int = 0,
    request_id: str = "",
    note: str = "",
) -> Posting:
    """The pair that changes a customer's balance by `change_nanousd`.

    Raises:
        ValueError: no change, or one in a direction that this kind does not have; a bug in the caller.
    """
    gives = change_nanousd > 0
    if change_nanousd == 0 or (kind is not EntryKind.ADJUSTMENT and gives is (kind in _TAKES_FROM_CUSTOMER)):
        raise ValueError(f"a {kind.name} cannot change a balance by {change_nanousd}")
    house = _HOUSE_OF[kind].value
    return Posting(
        kind=int(kind),
        account_id=account_id,
        debit_account_id=house if gives else account_id,
        credit_account_id=account_id if gives else house,
        amount_nanousd=abs(change_nanousd),
        overflow_nanousd=overflow_nanousd,
        request_id=request_id,
        note=note,
    )


@dataclass(frozen=True, slots=True)
class Debit:
    """Whether an operator's debit goes through, and how much of it is labelled as overflow."""

    allowed: bool
    overflow_nanousd: int = 0


def debit(available_nanousd: int, grace_nanousd: int, amount_nanousd: int, *, force: bool) -> Debit:
    """Judges a debit against the account's guard: only a forced one may cross the grace, and is labelled whole."""
    if available_nanousd - amount_nanousd >= -grace_nanousd:
        return Debit(allowed=True)
    return Debit(allowed=force, overflow_nanousd=amount_nanousd if force else 0)


def overflow_of_terms(available_nanousd: int, overflow_nanousd: int, grace_nanousd: int) -> int:
    """The account's labelled overflow once its grace is `grace_nanousd`.

    Terms may be cut below what an account already owes (an operator must be able to stop somebody at once); what they
    no longer cover is labelled, so that the guard `available >= -grace - overflow` holds after it as before.
    """
    return max(overflow_nanousd, -available_nanousd - grace_nanousd)
