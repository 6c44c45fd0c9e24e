"""Batches that are posted at once: whatever they are, the books are those of posting them record by record."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_usage_books import TERMS, TODAY, event
from usage_svc import intake
from usage_svc.events import EventRecord, Outcome, PriceTerms, Record, ReturnRecord, Source
from usage_svc.intake import Intake, Lookups, sift, take_in
from usage_svc.leases import Lease
from usage_svc.prices import judge
from usage_svc.sessions import SessionId

OURS, FOREIGN = SessionId("spool-1", 1), SessionId("spool-2", 1)
DEAR = PriceTerms("v2", "0.000000003", "0")
UNKNOWN = PriceTerms("v3", "0.000000005", "0")  # never judged: nobody knows its price
PRICES = dict(judge([TERMS, DEAR], {}).prices)


def _leases(granted: int) -> dict[str, Lease]:
    leases = {
        "a": Lease("a", "acme", "spool-1", 1, granted),
        "b": Lease("b", "bell", "spool-1", 1, granted),
        "closed": Lease("closed", "acme", "spool-1", 1, granted),
        "theirs": Lease("theirs", "acme", "spool-2", 1, granted),
    }
    leases["closed"].release()
    return leases


@st.composite
def _events(draw: st.DrawFn, *, usual: bool) -> EventRecord:
    lease_id, account_id = draw(st.sampled_from([("a", "acme"), ("b", "bell")]))
    if not usual:
        lease_id = draw(st.sampled_from(["a", "b", "closed", "theirs", "gone", ""]))
    made = event(draw(st.integers(0, 200)), account_id, lease_id, draw(st.integers(0, 40)))
    outcomes = [(Outcome.MEASURED, Source.UPSTREAM_FINAL)] * 3
    outcomes += [(Outcome.NONE, Source.NONE), (Outcome.WAIVED, Source.NONE), (Outcome.EDGE_LOST, Source.NONE)]
    outcome, source = draw(st.sampled_from(outcomes))
    terms = draw(st.sampled_from([TERMS, DEAR] if usual else [TERMS, DEAR, UNKNOWN, PriceTerms()]))
    changed = made.event._replace(
        outcome=int(outcome),
        source=int(source),
        ending=4 if outcome is Outcome.EDGE_LOST else 1,
        price_version=terms.price_version,
    )
    return EventRecord(changed, 1, terms)


_USUAL = st.lists(_events(usual=True), min_size=1, max_size=12)
_ANY = st.lists(
    st.one_of(_events(usual=True), _events(usual=False), st.builds(ReturnRecord, st.just("a"), st.integers(0, 50))),
    min_size=1,
    max_size=12,
)


def _books(found: Intake, known: Lookups) -> Any:
    """What a batch comes to, whoever took it in."""
    posted = found.posted
    columns = (posted.days, *posted.fields, posted.charges_nanousd, posted.overflows_nanousd, posted.seqs)
    rows = list(zip(*columns, strict=True))
    return rows, found.superseded, found.leases, known.leases, found.accounts, found.exceptions, found.overflows


@given(records=st.one_of(_USUAL, _ANY), granted=st.integers(0, 400))
def test_a_batch_at_once_is_the_batch_record_by_record(records: list[Record], granted: int) -> None:
    sifted = sift(records, TODAY, 35)
    once, singly = (Lookups(_leases(granted), {}, PRICES, {}) for _ in range(2))
    at_once = intake._take_in_at_once(OURS, 7, records, sifted, once)
    one_by_one = intake._take_in_one_by_one(OURS, 7, records, sifted, singly)
    if at_once is None:
        assert once.leases == _leases(granted)  # nothing was drawn
    else:
        assert _books(at_once, once) == _books(one_by_one, singly)


def _batch() -> list[Record]:
    return [event(number, "acme", "a", 10) for number in range(5)]


def _is_taken_at_once(records: list[Record], lookups: Lookups, session_id: SessionId = OURS) -> bool:
    known = deepcopy(lookups)
    return intake._take_in_at_once(session_id, 1, records, sift(records, TODAY, 35), known) is not None


def test_what_is_common_is_posted_at_once_and_nothing_else_is() -> None:
    usual = Lookups(_leases(50), {}, PRICES, {})
    assert _is_taken_at_once(_batch(), usual)
    assert _is_taken_at_once([*_batch(), event(9, "bell", "b", 10)], usual)
    assert not _is_taken_at_once([*_batch(), event(9, "acme", "a", 10)], usual)  # beyond its lease
    assert not _is_taken_at_once(
        [*_batch(), event(9, "bell", "a", 0), event(8, "bell", "a", 1)], usual
    )  # a foreign one
    assert not _is_taken_at_once([*_batch(), event(0, "acme", "a", 0)], usual)  # twice in it
    assert not _is_taken_at_once(_batch(), replace(usual, seen_outcomes={"x": 1}))
    assert not _is_taken_at_once(_batch(), replace(usual, prices={}))
    assert not _is_taken_at_once(_batch(), usual, FOREIGN)
    assert not _is_taken_at_once([*_batch(), ReturnRecord("a", 1)], usual)


def test_a_batch_of_which_nothing_can_be_posted_has_empty_columns() -> None:
    records: list[Record] = [ReturnRecord("gone", 5)]
    found = take_in(OURS, 1, records, sift(records, TODAY, 35), Lookups({}, {}, {}, {}))
    assert not found.posted.days
    assert not found.posted.field("request_id")
    assert [each.reason for each in found.exceptions] == ["LEASE_UNKNOWN"]
