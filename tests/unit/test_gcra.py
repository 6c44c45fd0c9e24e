"""chassis: the rate algorithm, by its properties."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.gcra import Gcra

LIMITS = st.integers(1, 10**9)
STEPS = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 10**9)), max_size=60)


@given(LIMITS, STEPS)
def test_no_stretch_of_time_sees_more_than_the_limit_and_what_came_back_in_it(
    limit: int, steps: list[tuple[float, int]]
) -> None:
    rate, now_s = Gcra(limit, 60.0), 0.0
    passed: list[tuple[float, int]] = []
    for wait_s, wanted in steps:
        now_s += wait_s
        amount = min(wanted, rate.left(now_s))
        if amount:
            assert rate.take(amount, now_s)
            passed.append((now_s, amount))
        assert not rate.take(rate.left(now_s) + 1, now_s)
    for first, (start_s, _) in enumerate(passed):
        total = 0
        for end_s, amount in passed[first:]:
            total += amount
            assert total <= limit * (1 + (end_s - start_s) / 60.0) * (1 + 1e-9) + 1


@given(LIMITS, STEPS, st.integers(1, 10**9))
def test_who_waits_as_long_as_told_gets_it_and_who_waits_less_does_not(
    limit: int, steps: list[tuple[float, int]], amount: int
) -> None:
    rate, now_s = Gcra(limit, 60.0), 0.0
    for wait_s, wanted in steps:
        now_s += wait_s
        rate.take(min(wanted, rate.left(now_s)) or 1, now_s)
    wait_s = rate.wait_s(amount, now_s)
    if amount > limit:
        assert wait_s == math.inf
        return
    assert 0 <= wait_s <= 60.0
    if wait_s > 0:
        assert rate.left(now_s) < amount
    assert rate.take(amount, now_s + wait_s + 1e-9 * (1 + now_s))


@given(LIMITS, st.integers(0, 10**9), st.floats(0, 120))
def test_what_is_given_back_at_once_undoes_what_was_taken_and_late_it_is_not_given_twice(
    limit: int, amount: int, later_s: float
) -> None:
    rate = Gcra(limit, 60.0)
    amount = min(amount, limit)
    assert rate.take(amount, 0.0)
    rate.give_back(amount, 0.0)
    assert rate.left(0.0) == limit
    rate.take(limit, 0.0)
    rate.give_back(amount, later_s)
    assert rate.left(later_s) <= limit


def test_a_steady_stream_at_the_limit_always_passes() -> None:
    rate = Gcra(60, 60.0)
    assert rate.take(60, 0.0)
    for second in range(1, 600):
        assert rate.take(1, float(second))
        assert not rate.take(1, float(second))


def test_time_that_jumps_back_gives_nothing() -> None:
    rate = Gcra(60, 60.0)
    rate.take(60, 100.0)
    assert rate.left(10.0) == 0
    assert rate.left(101.0) == 1


@pytest.mark.parametrize(("limit", "period_s"), [(0, 60.0), (5, 0.0)])
def test_a_limit_of_nothing_is_a_bug_of_the_caller(limit: int, period_s: float) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Gcra(limit, period_s)
