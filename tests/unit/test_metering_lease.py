"""Lease arithmetic: money is neither lost nor invented, and refills are rare."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.metering.lease import SPARE_HOLDS, Lease
from edge.metering.lease_book import LeaseBook

WINDOW_S = 60.0


def new_lease(granted: int = 0) -> Lease:
    lease = Lease("lease", "account", now=0.0, window_s=WINDOW_S)
    lease.grant(granted, near_limit=False)
    return lease


class LeaseMachine(RuleBasedStateMachine):
    """Whatever is asked of a lease, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.lease = new_lease()
        self.holds: list[int] = []
        self.overdrawn = 0

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(amount=st.integers(0, 10_000), near_limit=st.booleans())
    def a_grant_arrives(self, amount: int, near_limit: bool) -> None:
        self.lease.grant(self.lease.granted_nanousd + amount, near_limit)

    @rule(total=st.integers(0, 10_000))
    def a_late_answer_arrives(self, total: int) -> None:
        before = self.lease.granted_nanousd
        self.lease.grant(min(total, before), near_limit=False)
        assert self.lease.granted_nanousd == before

    @rule(hold=st.integers(0, 3_000))
    def a_request_begins(self, hold: int) -> None:
        free = self.lease.free_nanousd
        taken = self.lease.take(hold, self.now)
        assert taken == (hold <= free)
        if taken:
            self.holds.append(hold)

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), charge=st.integers(0, 5_000))
    def a_request_ends(self, data: st.DataObject, charge: int) -> None:
        hold = self.holds.pop(data.draw(st.integers(0, len(self.holds) - 1)))
        self.lease.settle(hold, charge)
        self.overdrawn += max(0, charge - hold)

    @precondition(lambda self: self.holds)
    @rule()
    def a_request_is_not_forwarded(self) -> None:
        free = self.lease.free_nanousd
        hold = self.holds.pop()
        self.lease.release(hold)
        assert self.lease.free_nanousd == free + hold

    @rule(share=st.floats(0, 1))
    def funds_go_back(self, share: float) -> None:
        free = self.lease.free_nanousd
        if free > 0:
            before = self.lease.returned_nanousd
            assert self.lease.give_back(int(free * share)) >= before

    @rule()
    def surplus_goes_back(self) -> None:
        surplus = self.lease.surplus_nanousd(self.now)
        assert 0 <= surplus <= max(0, self.lease.free_nanousd)
        if surplus:
            self.lease.give_back(surplus)

    @rule(waiting=st.lists(st.integers(1, 3_000), max_size=4))
    def a_demand_is_enough(self, waiting: list[int]) -> None:
        demand = self.lease.demand(self.now, sum(waiting), waiting[0] if waiting else 0)
        assert 1 <= demand.min_nanousd <= demand.want_nanousd
        free = self.lease.free_nanousd
        assert free + demand.want_nanousd >= sum(waiting)
        if waiting:
            assert free + demand.min_nanousd >= waiting[0]

    @invariant()
    def holds_are_covered(self) -> None:
        assert self.lease.held_nanousd == sum(self.holds)
        assert self.lease.open_holds == len(self.holds)
        assert self.lease.free_nanousd >= -self.overdrawn


TestLeaseMachine = LeaseMachine.TestCase


def test_a_charge_above_its_hold_comes_out_of_free_funds_and_not_of_a_neighbour() -> None:
    lease = new_lease(granted=250)
    assert lease.take(100, 0.0)
    assert lease.take(100, 0.0)
    lease.settle(100, 400)
    assert lease.free_nanousd == -250
    assert lease.held_nanousd == 100, "the neighbour's hold stands"
    assert not lease.take(1, 0.0)


def test_the_demand_after_an_overdraft_covers_it() -> None:
    lease = new_lease(granted=100)
    assert lease.take(100, 0.0)
    lease.settle(100, 400)
    assert lease.demand(0.0, 100, 100).min_nanousd == 400


def refills(charge: int, requests: int = 1000, hold: int = 1000) -> int:
    """Demands that sequential requests cause, where every demand is granted whole."""
    lease, count = new_lease(), 0
    for number in range(requests):
        now = number * 0.001
        if not lease.take(hold, now):
            count += 1
            lease.grant(lease.granted_nanousd + lease.demand(now, hold, hold).want_nanousd, near_limit=False)
            assert lease.take(hold, now)
        if lease.needs_refill(now):
            count += 1
            lease.grant(lease.granted_nanousd + lease.demand(now, 0, 0).want_nanousd, near_limit=False)
        lease.settle(hold, charge)
    return count


@pytest.mark.parametrize("charge", [0, 10, 100, 1000])
def test_a_thousand_requests_need_few_refills(charge: int) -> None:
    assert refills(charge) <= 20


def test_a_refill_is_asked_for_before_the_lease_runs_dry() -> None:
    lease = new_lease()
    lease.grant(lease.demand(0.0, 100, 100).want_nanousd, near_limit=False)
    waits = 0
    for _ in range(200):
        if not lease.take(100, 0.0):
            waits += 1
            break
        if lease.needs_refill(0.0):
            lease.grant(lease.granted_nanousd + lease.demand(0.0, 0, 0).want_nanousd, near_limit=False)
        lease.settle(100, 90)
    assert waits == 0


def test_leases_are_sized_by_the_peak_of_open_holds() -> None:
    lease = new_lease()
    demand = lease.demand(0.0, 50 * 100, 100)
    assert demand.want_nanousd >= 50 * 100 + SPARE_HOLDS * 100
    assert demand.min_nanousd == 100


def test_near_the_limit_nothing_is_refilled_in_the_background() -> None:
    lease = new_lease()
    lease.grant(100, near_limit=True)
    assert lease.take(100, 0.0)
    assert not lease.needs_refill(0.0)


def test_surplus_goes_back_after_a_minute_without_use_and_not_before() -> None:
    lease = new_lease(granted=500)
    assert lease.take(100, 0.0)
    lease.settle(100, 10)
    assert lease.surplus_nanousd(WINDOW_S - 1) == 0
    assert lease.surplus_nanousd(WINDOW_S) == 490


def test_a_past_peak_goes_back_while_the_account_is_busy() -> None:
    lease = new_lease(granted=100_000)
    for _ in range(500):
        assert lease.take(100, 0.0)
    for _ in range(500):
        lease.settle(100, 0)
    assert lease.surplus_nanousd(1.0) == 0
    for second in range(0, 200, 10):
        assert lease.take(100, float(second))
        lease.settle(100, 0)
    surplus = lease.surplus_nanousd(200.0)
    assert 0 < surplus < lease.free_nanousd


@given(st.lists(st.integers(0, 9), max_size=60))
def test_a_book_stays_within_its_bound_and_returns_what_it_forgets(accounts: list[int]) -> None:
    returned: dict[str, int] = {}

    def give_back(lease: Lease, amount: int) -> bool:
        returned[lease.lease_id] = lease.give_back(amount)
        return True

    ids = iter(range(1000))
    book = LeaseBook(3, WINDOW_S, lambda: f"lease-{next(ids)}", give_back)
    everything: set[Lease] = set()
    for now, account in enumerate(accounts):
        lease = book.ensure(f"account-{account}", float(now))
        if lease not in everything:
            lease.grant(100, near_limit=False)
            everything.add(lease)
        assert len(book) <= 3
    for lease in everything - set(book):
        assert returned[lease.lease_id] == 100


def test_a_book_keeps_leases_with_open_requests_above_its_bound() -> None:
    book = LeaseBook(2, WINDOW_S, lambda: "id", lambda lease, amount: True)
    for account in "abc":
        lease = book.ensure(account, 0.0)
        lease.grant(100, near_limit=False)
        assert lease.take(100, 0.0)
    assert len(book) == 3


def test_an_idle_lease_is_returned_and_forgotten() -> None:
    returned: list[int] = []

    def give_back(lease: Lease, amount: int) -> bool:
        returned.append(lease.give_back(amount))
        return True

    book = LeaseBook(10, WINDOW_S, lambda: "id", give_back)
    lease = book.ensure("a", 0.0)
    lease.grant(100, near_limit=False)
    assert lease.take(30, 0.0)
    lease.settle(30, 0)
    book.return_surplus(WINDOW_S - 1, 100)
    assert len(book) == 1
    book.return_surplus(WINDOW_S, 100)
    assert (len(book), returned) == (0, [100])
