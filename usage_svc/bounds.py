"""What a field of a request may hold. Each check gives the value back, or names the field and what would be right."""

import re
from collections.abc import Sequence

from chassis.faults import InvalidArgument
from usage_svc.key_rate import LimitDemand
from usage_svc.key_spend import PERIOD_ID, SpendDemand
from usage_svc.ledger import HOUSE_ACCOUNT_IDS, MAX_AMOUNT_NANOUSD
from usage_svc.rating import MAX_ID_CHARS
from usage_svc.sessions import SessionId

MAX_DEMANDS = 1000
MAX_RECORDS = 1000
MAX_SEQ = 2**62
MAX_NOTE_CHARS = 500
MAX_EDGE_NAME_CHARS = 200
MAX_LIMIT = 10**13  # of any number of a key's limits: a float counts up to there in thousandths

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def text(field: str, value: str, chars_max: int, *, chars_min: int = 0) -> str:
    """A text within its length, without NUL, which PostgreSQL cannot keep."""
    if not chars_min <= len(value) <= chars_max or "\0" in value:
        raise InvalidArgument(field, f"give {chars_min} to {chars_max} characters, none of them NUL")
    return value


def account_id(value: str, field: str = "account_id") -> str:
    """A customer's account: any id that prints, in one word, and is not a house account's name.

    Which accounts there are, auth_svc alone knows.
    """
    if value in HOUSE_ACCOUNT_IDS:
        raise InvalidArgument(field, f"{value!r} is one of the house's own ledger accounts, not a customer's")
    if not 0 < len(value) <= MAX_ID_CHARS or not value.isprintable() or " " in value:
        raise InvalidArgument(field, f"give the account's id: 1 to {MAX_ID_CHARS} characters that print, no spaces")
    return value


def require_given(field: str, value: str) -> None:
    """Refuses a call that does not say which one it means; an id that cannot be is one that is not there."""
    if not value:
        raise InvalidArgument(field, "is empty: say which one")


def amount(field: str, value: int, *, least: int = 0) -> int:
    """Nano-USD within what the ledger takes in one movement."""
    if not least <= value <= MAX_AMOUNT_NANOUSD:
        raise InvalidArgument(field, f"{value} is not from {least} to {MAX_AMOUNT_NANOUSD} nano-USD")
    return value


def total(field: str, available_nanousd: int) -> None:
    """What an account will have. Nine of these fit an int64; without a bound the sum of many movements would not."""
    if abs(available_nanousd) > MAX_AMOUNT_NANOUSD:
        raise InvalidArgument(field, f"the balance would go beyond {MAX_AMOUNT_NANOUSD} nano-USD")


def seq(field: str, value: int) -> int:
    """A sequence number: they count from 1."""
    if not 1 <= value <= MAX_SEQ:
        raise InvalidArgument(field, f"{value} is not a sequence number: they count from 1")
    return value


def spool_uuid(value: str, field: str = "spool_uuid") -> str:
    """A spool's uuid in its canonical text form, since it is compared as text."""
    if _UUID.fullmatch(value) is None:
        raise InvalidArgument(field, "give a UUID in lower case with hyphens")
    return value


def session_id(value: SessionId) -> SessionId:
    """A session that can exist."""
    spool_uuid(value.spool_uuid, "session.spool_uuid")
    if not 1 <= value.incarnation <= MAX_SEQ:
        raise InvalidArgument("session.incarnation", f"{value.incarnation} is not an incarnation: they count from 1")
    return value


def at_most(field: str, count: int, most: int) -> None:
    """A repeated field within its length."""
    if count > most:
        raise InvalidArgument(field, f"{count} are too many: send at most {most} in one call")


def limit_demands(demands: Sequence[LimitDemand]) -> Sequence[LimitDemand]:
    """Demands of one key each, whose numbers are within what rates are counted in."""
    if len({demand.key_id for demand in demands}) != len(demands):
        raise InvalidArgument("demands", "two are of the same key: add them up")
    for demand in demands:
        text("demands.key_id", demand.key_id, MAX_ID_CHARS, chars_min=1)
        seq("demands.seq", demand.seq)
        for name, value in zip(demand._fields[2:], demand[2:], strict=True):
            if not 0 <= value <= MAX_LIMIT:
                raise InvalidArgument(f"demands.{name}", f"{value} is not from 0 to {MAX_LIMIT}")
    return demands


def spend_demands(demands: Sequence[SpendDemand]) -> Sequence[SpendDemand]:
    """Demands of one key and period each, with amounts that the ledger takes."""
    if len({(demand.key_id, demand.period_id) for demand in demands}) != len(demands):
        raise InvalidArgument("demands", "two are of the same key and period: add them up")
    for demand in demands:
        account_id(demand.account_id, "demands.account_id")
        text("demands.key_id", demand.key_id, MAX_ID_CHARS, chars_min=1)
        if PERIOD_ID.fullmatch(demand.period_id) is None:
            raise InvalidArgument("demands.period_id", "give a day as 2027-01-31, or a month as 2027-01")
        seq("demands.seq", demand.seq)
        for name in ("limit_nanousd", "want_nanousd", "min_nanousd", "returned_total_nanousd"):
            amount(f"demands.{name}", getattr(demand, name))
    return demands
