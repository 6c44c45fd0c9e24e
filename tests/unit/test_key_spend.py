"""usage_svc: spend limits of keys, without a database."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.access.key_cache import SpendLimit
from edge.limits.spend import period_of
from protos.auth.v1 import auth_pb2
from usage_svc.key_spend import PERIOD_ID, SpendDemand, SpendShare, is_current, period_bounds_us, period_ids
from usage_svc.leases import GrantOutcome

LIMIT = 1_000_000
GRANTED, USED_UP, HELD = GrantOutcome.GRANTED, GrantOutcome.FUNDS_USED_UP, GrantOutcome.FUNDS_HELD


def demand(seq: int, want: int, least: int, returned: int = 0, limit: int = LIMIT) -> SpendDemand:
    return SpendDemand("acct", "key", "2027-01", limit, seq, want, least, returned)


def test_a_grant_is_what_is_wanted_and_near_the_limit_exactly_one_hold() -> None:
    share = SpendShare()
    assert share.answer(demand(1, 200_000, 10_000), 0, 0).granted_total_nanousd == 200_000
    near = share.answer(demand(2, 200_000, 10_000), 0, 700_000)
    assert (near.granted_total_nanousd, near.near_limit) == (210_000, True)


def test_a_repeat_draws_nothing() -> None:
    share = SpendShare()
    first = share.answer(demand(1, 200_000, 10_000), 0, 0)
    assert share.answer(demand(1, 200_000, 10_000), 0, 0) == first


def test_held_is_told_from_used_up() -> None:
    assert SpendShare().answer(demand(1, 100, 100), LIMIT - 99, 0).outcome is USED_UP
    assert SpendShare().answer(demand(1, 100, 100), LIMIT - 100, 50).outcome is HELD
    assert SpendShare().answer(demand(1, 100, 100), LIMIT - 100, 0).outcome is GRANTED


def test_a_lowered_limit_grants_nothing_more_and_takes_nothing_away() -> None:
    share = SpendShare(granted_nanousd=500_000)
    lowered = share.answer(demand(1, 10, 10, limit=400_000), 0, 0)
    assert (lowered.outcome, lowered.granted_total_nanousd) == (HELD, 500_000)


@dataclass
class Edge:
    share: SpendShare = field(default_factory=SpendShare)
    granted: int = 0
    returned: int = 0
    settled: int = 0
    held: list[int] = field(default_factory=list)

    @property
    def free(self) -> int:
        return self.granted - self.returned - self.settled - sum(self.held)


@given(st.integers(0, 10**6))
def test_edges_together_never_spend_beyond_the_limit(seed: int) -> None:
    """Charges are posted late, answers are lost, and each charge is within its hold."""
    chance = random.Random(seed)
    edges, spent, unposted = [Edge() for _ in range(3)], 0, []
    for seq in range(1, 200):
        edge = chance.choice(edges)
        match chance.randrange(4):
            case 0:
                hold = chance.randrange(1, 50_000)
                if edge.free < hold:
                    elsewhere = sum(each.share.reserved_nanousd for each in edges if each is not edge)
                    wanted = demand(seq, hold * 3, hold - max(0, edge.free), edge.returned)
                    answer = edge.share.answer(wanted, spent, elsewhere)
                    if chance.random() < 0.8:
                        edge.granted = max(edge.granted, answer.granted_total_nanousd)
                if edge.free >= hold:
                    edge.held.append(hold)
            case 1 if edge.held:
                charge = chance.randrange(0, edge.held.pop() + 1)
                edge.settled += charge
                unposted.append((edge, charge))
            case 2 if unposted:
                poster, charge = unposted.pop(0)
                spent += charge
                poster.share.settled_nanousd += charge
            case 3 if edge.free > 0:
                edge.returned += edge.free
                edge.share.answer(demand(seq, 0, 0, edge.returned), spent, 0)
        open_nanousd = sum(sum(each.held) for each in edges) + sum(charge for _, charge in unposted)
        assert spent + open_nanousd <= spent + sum(each.share.reserved_nanousd for each in edges) <= LIMIT


@given(st.integers(86_400, 250_000_000_000))
def test_the_periods_of_a_moment_hold_it(moment_s: int) -> None:
    moment_us = moment_s * 1_000_000
    for period_id in period_ids(moment_us):
        assert PERIOD_ID.fullmatch(period_id)
        start_us, end_us = period_bounds_us(period_id)
        assert start_us <= moment_us < end_us
        assert is_current(period_id, moment_us)
        assert not is_current(period_id, end_us + 300_000_001)
    day, month = period_ids(moment_us)
    assert period_of(SpendLimit(1, auth_pb2.SPEND_PERIOD_DAY), moment_s) == day
    assert period_of(SpendLimit(1, auth_pb2.SPEND_PERIOD_MONTH), moment_s) == month


@pytest.mark.parametrize("text", ["2027", "2027-13", "2027-00", "2027-01-32", "2027-1-1", " 2027-01", "2027-01-01x"])
def test_what_is_no_period_is_seen(text: str) -> None:
    assert PERIOD_ID.fullmatch(text) is None
