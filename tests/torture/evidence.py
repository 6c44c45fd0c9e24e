"""What the three witnesses of a run say: the upstream, the clients, the ledger. Plain values, for verdict.py."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


class Tokens(NamedTuple):
    """Token counts as an upstream reports them."""

    prompt: int
    completion: int
    cached: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion


def tokens_from_usage(usage: Any) -> Tokens | None:
    """From a usage object of either resource; None where there is none."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = ("prompt", "completion") if "prompt_tokens" in usage else ("input", "output")
    details = usage.get(f"{prompt}_tokens_details") or {}
    return Tokens(usage[f"{prompt}_tokens"], usage[f"{completion}_tokens"], details.get("cached_tokens") or 0)


@dataclass(frozen=True, slots=True)
class Reported:
    """One answer of the upstream. A request that was tried twice has two."""

    request_id: str
    tokens: Tokens | None  # None: it reported no usage
    is_whole: bool  # it came to its scripted end
    question: str = ""  # which question it answered; asked again by a retry, that is another request
    begin_s: float = 0.0  # since the epoch
    end_s: float = 0.0


class Ending(StrEnum):
    """How a request ended for its client."""

    COMPLETED = "completed"  # it has the whole answer, and saw that it is whole
    CANCELLED = "cancelled"  # it went away by itself
    BROKEN = "broken"  # the answer broke off
    REFUSED = "refused"  # an error answer
    UNREACHABLE = "unreachable"  # no answer


@dataclass(frozen=True, slots=True)
class Sighting:
    """One request as its client saw it. Moments are seconds since the epoch."""

    request_id: str  # empty where no head arrived
    account_id: str
    edge: str
    start_s: float
    end_s: float
    status: int
    ending: Ending
    tokens: Tokens | None = None  # as told to the client; None where it did not ask, or did not learn
    may_break: bool = False  # the upstream was told to fail


@dataclass(frozen=True, slots=True)
class Event:
    """A row of usage: a request's outcome in the ledger."""

    request_id: str
    account_id: str
    outcome: int
    tokens: Tokens
    charged_nanousd: int
    hold_nanousd: int
    admit_s: float
    spool_uuid: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One movement of money."""

    kind: int
    account_id: str
    debit_account_id: str
    credit_account_id: str
    amount_nanousd: int
    request_id: str


@dataclass(frozen=True, slots=True)
class Lease:
    """Funds that were set aside for a session."""

    lease_id: str
    account_id: str
    granted_nanousd: int
    settled_nanousd: int
    returned_nanousd: int
    closed: bool

    @property
    def reserved_nanousd(self) -> int:
        return self.granted_nanousd - self.settled_nanousd - self.returned_nanousd


@dataclass(frozen=True, slots=True)
class Account:
    """Where an account stands."""

    account_id: str
    available_nanousd: int
    grace_nanousd: int
    overflow_nanousd: int
    credited_nanousd: int


@dataclass(frozen=True, slots=True)
class Books:
    """Everything that the ledger holds."""

    events: Sequence[Event] = ()
    entries: Sequence[Entry] = ()
    leases: Sequence[Lease] = ()
    accounts: Sequence[Account] = ()
    unsealed_sessions: Sequence[str] = ()
    quarantined: Sequence[str] = ()  # reasons


@dataclass(frozen=True, slots=True)
class Kill:
    """An edge process that was ended without warning, by its spool."""

    spool_uuid: str
    at_s: float  # since the epoch
    is_power_cut: bool = False  # then its disk has lost what was not synced
    edge: str = ""


@dataclass(frozen=True, slots=True)
class Drain:
    """An edge process that was asked to end, and did."""

    edge: str
    from_s: float  # since the epoch
    until_s: float


ONCE = "k"  # begins the names of questions that are asked under an idempotency key


@dataclass(slots=True)
class Evidence:
    """All of it."""

    reported: Sequence[Reported]
    sightings: Sequence[Sighting]
    books: Books
    kills: Sequence[Kill] = ()
    drains: Sequence[Drain] = ()
    credits_nanousd: dict[str, int] = field(default_factory=dict)  # put into each account
    complaints: Sequence[str] = ()  # what went wrong with the processes themselves
