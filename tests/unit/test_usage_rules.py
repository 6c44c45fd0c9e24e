"""usage_svc's pure rules, one by one: grants, returns, postings, cursors, prices, the gate."""

import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage_svc import ledger, rating
from usage_svc.events import PriceTerms
from usage_svc.leases import NEAR_LIMIT_HOLDS, Demand, GrantOutcome, Lease, refusal
from usage_svc.ledger import EntryKind, House
from usage_svc.prices import MAX_PRICES_REMEMBERED, PriceBook, judge
from usage_svc.rating import QUARANTINE_REASONS, day_of, price_from_terms
from usage_svc.sessions import records_to_skip


def lease(granted: int = 0) -> Lease:
    return Lease("lease", "acme", "spool", 1, granted)


def demand(want: int, least: int, seq: int = 1) -> Demand:
    return Demand("lease", "acme", seq, want, least)


@pytest.mark.parametrize(
    ("headroom", "want", "least", "granted", "near_limit"),
    [
        (10_000, 3_000, 100, 3_000, False),  # as wanted
        (10_000, 20_000, 100, 10_000, False),  # all there is
        (10_000, 0, 100, 100, False),  # never less than one hold
        (NEAR_LIMIT_HOLDS * 100, 500, 100, 500, False),  # just not near
        (NEAR_LIMIT_HOLDS * 100 - 1, 500, 100, 100, True),  # near: one hold
        (100, 500, 100, 100, True),  # the last one
    ],
)
def test_a_grant_is_what_is_wanted_or_one_hold_near_the_limit(
    headroom: int, want: int, least: int, granted: int, near_limit: bool
) -> None:
    answer = lease().grant(demand(want, least), headroom)
    assert answer is not None
    assert (answer.granted_nanousd, answer.near_limit) == (granted, near_limit)
    assert answer.available_nanousd == headroom - granted


def test_less_than_one_hold_is_not_granted_and_not_remembered() -> None:
    ours = lease()
    assert ours.grant(demand(500, 100), 99) is None
    assert ours == lease()


@pytest.mark.parametrize(
    ("headroom", "reserved", "outcome"),
    [
        (99, 0, GrantOutcome.FUNDS_HELD),  # one request may run under-held
        (99, 1, GrantOutcome.FUNDS_HELD),
        (0, 99, GrantOutcome.FUNDS_HELD),  # once it is back, one request may run under-held
        (0, 0, GrantOutcome.FUNDS_USED_UP),
        (-50, 150, GrantOutcome.FUNDS_HELD),
        (-51, 51, GrantOutcome.FUNDS_USED_UP),  # even all of it would not be enough: waiting does not help
    ],
)
def test_a_refusal_says_whether_waiting_helps(headroom: int, reserved: int, outcome: GrantOutcome) -> None:
    assert refusal(demand(100, 100), headroom, reserved, 0).outcome is outcome


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2_000)), max_size=30), st.integers(0, 10_000))
def test_whatever_is_charged_and_returned_a_lease_gives_at_most_what_it_has(
    steps: list[tuple[bool, int]], granted: int
) -> None:
    ours, charged, given_back, overflow = lease(granted), 0, 0, 0
    for is_charge, amount in steps:
        if is_charge:
            overflow += ours.settle(amount)
            charged += amount
        else:
            given_back += ours.give_back(amount)
        assert 0 <= ours.settled_nanousd + ours.returned_nanousd <= granted
    assert ours.settled_nanousd + overflow == charged
    assert given_back == ours.returned_nanousd
    left = ours.reserved_nanousd
    assert ours.release() == left
    assert ours.reserved_nanousd == 0


@given(st.lists(st.integers(0, 1_000), min_size=1, max_size=10))
def test_returns_in_any_order_and_number_come_to_the_largest(totals: list[int]) -> None:
    ours = lease(10_000)
    assert sum(ours.give_back(total) for total in totals) == max(totals)


@pytest.mark.parametrize("kind", list(EntryKind))
@pytest.mark.parametrize("change", [7, -7])
def test_a_posting_is_a_balanced_pair_in_the_direction_of_its_kind(kind: EntryKind, change: int) -> None:
    takes = {EntryKind.CHARGE, EntryKind.BREAKAGE}
    if kind is not EntryKind.ADJUSTMENT and (change > 0) == (kind in takes):
        with pytest.raises(ValueError, match=kind.name):
            ledger.posting(kind, "acme", change)
        return
    pair = ledger.posting(kind, "acme", change)
    assert pair.amount_nanousd == 7
    assert (pair.credit_account_id if change > 0 else pair.debit_account_id) == "acme"
    assert (pair.debit_account_id if change > 0 else pair.credit_account_id) in set(House)


def test_a_posting_of_nothing_is_a_bug() -> None:
    with pytest.raises(ValueError, match="by 0"):
        ledger.posting(EntryKind.ADJUSTMENT, "acme", 0)


@given(st.integers(-1000, 1000), st.integers(0, 500), st.integers(1, 2000), st.booleans())
def test_a_debit_crosses_the_grace_only_by_force_and_labelled(
    available: int, grace: int, amount: int, force: bool
) -> None:
    verdict = ledger.debit(available, grace, amount, force=force)
    crosses = available - amount < -grace
    assert verdict.allowed is (force or not crosses)
    assert verdict.overflow_nanousd == (amount if crosses and force else 0)


@given(st.integers(-1000, 1000), st.integers(0, 500), st.integers(0, 500))
def test_cutting_terms_labels_what_they_no_longer_cover(available: int, overflow: int, grace: int) -> None:
    labelled = ledger.overflow_of_terms(available, overflow, grace)
    assert labelled >= overflow
    assert available >= -grace - labelled


@pytest.mark.parametrize(
    ("next_seq", "first_seq", "count", "skip"),
    [(1, 1, 5, 0), (3, 1, 5, 2), (6, 1, 5, 5), (9, 1, 5, 5), (1, 2, 5, None), (4, 4, 0, 0), (4, 5, 0, None)],
)
def test_the_cursor_says_what_of_a_batch_is_new(next_seq: int, first_seq: int, count: int, skip: int | None) -> None:
    assert records_to_skip(next_seq, first_seq, count) == skip


@pytest.mark.parametrize(
    ("request_id", "day"),
    [
        ("00000000-0000-7000-8000-000000000000", 0),
        ("00000526-5bff-7fff-bfff-ffffffffffff", 0),
        ("00000526-5c00-7000-8000-000000000000", 1),
        ("00000000-0000-7000-C000-000000000000", None),
        ("00000000-0000-7000-8000-00000000000A", None),
        ("00000000000070008000000000000000", None),
        ("00000000-0000-7000-8000-000000000000\n", None),
        ("", None),
    ],
)
def test_a_day_is_taken_from_a_canonical_uuid7_and_nothing_else(request_id: str, day: int | None) -> None:
    # Both halves of the boundary: 86,400,000 ms is 0x5265C00.
    assert day_of(request_id) == day


def test_of_two_vectors_of_a_new_version_the_first_holds() -> None:
    first, second, same = PriceTerms("v", "1", "2"), PriceTerms("v", "1", "3"), PriceTerms("v", "1.0", "2.00")
    verdicts = judge([first, second, same], {})
    assert verdicts.first_seen == (first,)
    assert set(verdicts.prices) == {first, same}
    assert verdicts.reasons == {second: "PRICE_CONTRADICTS_VERSION"}
    again = judge([second, same], {"v": first})
    assert (again.first_seen, set(again.prices)) == ((), {same})


@pytest.mark.parametrize("bad", ["", "x", "-1", "1e400", "NaN", "1001", "0." + "1" * 19, "1" * 51])
def test_a_price_that_is_none_is_not_made_up(bad: str) -> None:
    assert price_from_terms(PriceTerms("v", bad, "1")) is None
    assert judge([PriceTerms("v", bad, "1")], {}).reasons == {PriceTerms("v", bad, "1"): "PRICE_INVALID"}


def test_absent_cache_rates_are_absent_and_absent_fees_are_nothing() -> None:
    price = price_from_terms(PriceTerms("v", "1", "2"))
    assert price is not None
    assert (price.input_cache_read, price.input_cache_write) == (None, None)
    assert (price.image, price.request) == (Decimal(0), Decimal(0))


def test_the_price_book_forgets_the_oldest_beyond_its_bound() -> None:
    book, price = PriceBook(), price_from_terms(PriceTerms("v", "1", "2"))
    assert price is not None
    terms = [PriceTerms(str(n), "1", "2") for n in range(MAX_PRICES_REMEMBERED + 1)]
    book.add(dict.fromkeys(terms, price))
    assert book.known(terms[:1]) == {}
    assert len(book.known(terms)) == MAX_PRICES_REMEMBERED


def test_every_reason_that_the_code_names_is_explained() -> None:
    with open(rating.__file__) as source:
        named = set(re.findall(r'(?:return|else) "([A-Z_]{5,})"', source.read()))
    assert named <= set(QUARANTINE_REASONS)


def test_every_reason_is_in_the_documentation_as_the_code_has_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "billing.md").read_text()
    for reason, explanation in QUARANTINE_REASONS.items():
        assert f"| `{reason}` | {explanation} |" in page
