"""Several edges and one row of usage_svc, without a network: what they admit together, by the clock of the test."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.access.key_cache import Limits
from edge.limits.headers import duration, rate_headers
from edge.limits.share import KeyShare
from usage_svc.key_rate import HOLDING_TTL_S, KeyRate, LimitDemand

KEY = "key_1"


@dataclass
class Fleet:
    """Edges that share a key, each looking once a second. `lossy` loses answers."""

    limits: Limits
    count: int
    lossy: float = 0.0
    now_s: float = 1_000.0
    seq: int = 0
    rate: KeyRate = field(default_factory=lambda: KeyRate(KEY))
    edges: list[KeyShare] = field(default_factory=list)
    open: list[tuple[KeyShare, int]] = field(default_factory=list)
    admitted: list[tuple[float, int]] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def __post_init__(self) -> None:
        self.edges = [KeyShare(self.limits, self.now_s) for _ in range(self.count)]

    def ask(self, number: int, waiting: list[int]) -> None:
        edge = self.edges[number]
        demand = edge.demand(waiting)
        self.seq += 1
        limits = self.limits
        share = self.rate.share(
            f"edge-{number}",
            LimitDemand(
                KEY,
                self.seq,
                limits.requests_per_minute,
                limits.tokens_per_minute,
                limits.concurrent_requests,
                demand.want_requests,
                demand.want_tokens,
                demand.min_tokens,
                demand.want_slots,
                demand.open_requests,
                demand.returned_requests,
                demand.returned_tokens,
            ),
            self.now_s,
        )
        if self.chance.random() < self.lossy:
            return
        edge.granted(
            share.granted_requests,
            share.granted_tokens,
            share.slots,
            contended=share.contended,
            used=(share.used_requests, share.used_tokens),
            now_s=self.now_s,
        )

    def request(self, number: int, tokens: int = 1) -> bool:
        """One request at an edge, as the limiter does it: out of the share, else after a call."""
        edge = self.edges[number]
        if not edge.take(tokens, self.now_s):
            self.ask(number, [tokens])
            if not edge.take(tokens, self.now_s):
                return False
        self.open.append((edge, tokens))
        self.admitted.append((self.now_s, tokens))
        return True

    def finish(self, used: int | None = None) -> None:
        for edge, tokens in self.open:
            edge.settle(tokens, tokens if used is None else used, self.now_s)
        self.open.clear()

    def pass_time(self, seconds: float) -> None:
        """Each edge looks once a second, at a moment of its own."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(self.now_s + 1.0, end_s)
            for number, edge in enumerate(self.edges):
                edge.look()
                if edge.needs_word(self.now_s, 10.0):
                    self.ask(number, [])


def test_a_single_busy_edge_gets_the_whole_limit_whatever_others_had() -> None:
    fleet = Fleet(Limits(60, 0, 0), 3)
    for number in (0, 1, 2):
        assert fleet.request(number)
    fleet.finish()
    fleet.pass_time(70)
    assert sum(fleet.request(0) for _ in range(100)) == 60
    for _ in range(120):
        fleet.pass_time(1)
        fleet.finish()
        assert fleet.request(0), "one a second is what sixty a minute are"


@pytest.mark.parametrize("edges", [1, 2, 3, 7])
def test_a_burst_over_several_edges_is_admitted_up_to_the_limit_and_no_further(edges: int) -> None:
    fleet = Fleet(Limits(60, 0, 0), edges)
    assert sum(fleet.request(n % edges) for n in range(300)) == 60


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(5, 300), st.integers(0, 10**6), st.sampled_from([0.0, 0.2]))
def test_edges_together_stay_within_the_stated_error(edges: int, limit: int, seed: int, lossy: float) -> None:
    """In any stretch of w seconds: limit * (1 + (w + 2) / 60), docs/limits.md. Lost answers cost, and never add."""
    chance = random.Random(seed)
    fleet = Fleet(Limits(limit, limit * 100, 0), edges, lossy=lossy)
    fleet.chance = chance
    for _ in range(90):
        for _ in range(chance.choice([0, 1, limit // 4 + 1])):
            fleet.request(chance.randrange(edges), chance.randrange(1, 400))
        if chance.random() < 0.7:
            fleet.finish(used=chance.randrange(0, 100))
        fleet.pass_time(1)
    for first, (start_s, _) in enumerate(fleet.admitted):
        for count, (end_s, _) in enumerate(fleet.admitted[first:], start=1):
            assert count <= limit * (1 + (end_s - start_s + 2) / 60) + 1


def test_two_edges_in_steady_use_get_the_limit_between_them() -> None:
    fleet = Fleet(Limits(600, 0, 0), 2)
    fleet.request(0)
    admitted = 0
    for second in range(240):
        for _ in range(20):
            for number in (0, 1):
                done = fleet.request(number)
                admitted += done if second >= 120 else 0
        fleet.finish()
        fleet.pass_time(1)
    assert 600 * 2 * 0.9 <= admitted <= 600 * 2 * 1.04


def test_tokens_are_reserved_by_the_bound_and_settled_by_what_was_used() -> None:
    fleet = Fleet(Limits(0, 1000, 0), 2)
    assert fleet.request(0, 900)
    assert not fleet.request(1, 900)
    fleet.finish(used=50)
    assert fleet.request(0, 900)
    fleet.finish(used=100)
    fleet.pass_time(3)
    assert fleet.request(1, 860)


def test_a_request_that_used_more_than_its_bound_is_made_up_for() -> None:
    fleet = Fleet(Limits(0, 1000, 0), 1)
    assert fleet.request(0, 100)
    fleet.finish(used=600)
    assert not fleet.request(0, 500)
    assert fleet.request(0, 400)


@pytest.mark.parametrize("used", [1_001, 2_000, 10**15])
@pytest.mark.parametrize("edges", [1, 3])
def test_a_request_that_used_more_than_a_minute_stops_its_key_for_a_minute_at_most(edges: int, used: int) -> None:
    fleet = Fleet(Limits(0, 1000, 0), edges)
    assert fleet.request(0, 100)
    fleet.finish(used=used)
    for number in range(edges):  # after the next look the others know too
        fleet.pass_time(1)
        assert not fleet.request(number, 1000)
        wait_s = fleet.edges[number].wait_s(1000, fleet.now_s)
        assert 50 < wait_s <= 60
    fleet.pass_time(fleet.edges[0].wait_s(1000, fleet.now_s) + 1)
    assert fleet.request(0, 1000)


def test_a_debt_is_paid_though_somebody_asks_all_the_time() -> None:
    fleet = Fleet(Limits(0, 1000, 0), 2)
    assert fleet.request(0, 500)
    fleet.finish(used=1_000)
    for _ in range(60):
        for _ in range(10):
            fleet.now_s += 0.1
            admitted = fleet.request(0, 600)
            if admitted:
                assert 35 <= fleet.now_s - 1_000.0 <= 37, "600 of 1000 come back in 36 seconds"
                return
        fleet.pass_time(0.001)
    pytest.fail("the debt was never paid")


def test_a_debt_without_a_limit_is_none_and_a_lower_limit_is_never_owed_more_than_once() -> None:
    share = KeyShare(Limits(0, 1000, 0), 0.0)
    share.grant_alone(100, 0.0)
    assert share.take(100, 0.0)
    share.settle(100, 1_000, 0.0)
    share.use(Limits(0, 100, 0), 0.0)
    assert share.wait_s(100, 0.0) <= 60
    share.use(Limits(0, 0, 0), 0.0)
    assert share.wait_s(100, 0.0) == 0
    assert not share.needs_word(1.0, 10.0)


def test_an_edge_alone_makes_up_for_a_debt_too() -> None:
    share = KeyShare(Limits(0, 1000, 0), 0.0)
    share.grant_alone(100, 0.0)
    assert share.take(100, 0.0)
    share.settle(100, 10_000, 0.0)
    share.grant_alone(500, 0.0)
    assert not share.take(500, 0.0)
    wait_s = share.wait_s(500, 0.0)
    assert 0 < wait_s <= 60
    share.grant_alone(500, wait_s)
    assert share.take(500, wait_s)


def test_open_requests_are_counted_over_all_edges_and_their_slots_move() -> None:
    fleet = Fleet(Limits(0, 0, 5), 3)
    assert [fleet.request(n % 3) for n in range(7)] == [True] * 5 + [False] * 2
    fleet.finish()
    fleet.pass_time(3)
    assert [fleet.request(1) for _ in range(6)] == [True] * 5 + [False]


def test_slots_are_asked_for_those_who_waited_though_they_were_served_meanwhile() -> None:
    """Else an edge that became busy asks for one slot too few with every request."""
    edge = KeyShare(Limits(0, 0, 40), 0.0)
    edge.granted(0, 0, 1, contended=False, used=(0.0, 0.0), now_s=0.0)
    assert edge.take(0, 0.0)
    edge.note_waiting(31)
    assert edge.demand([]).want_slots == 32
    edge.note_waiting(100)
    assert edge.demand([]).want_slots == 40
    edge.granted(0, 0, 1, contended=True, used=(0.0, 0.0), now_s=0.0)
    assert edge.demand([]).want_slots == 1, "others wait: none is asked for ahead"


def test_slots_of_an_edge_that_is_not_heard_of_come_back_after_their_time() -> None:
    fleet = Fleet(Limits(0, 0, 2), 2)
    assert fleet.request(0)
    assert fleet.request(0)
    fleet.edges[0] = KeyShare(fleet.limits, fleet.now_s)  # that edge is gone, and with it its requests
    fleet.open.clear()
    assert not fleet.request(1)
    fleet.now_s += HOLDING_TTL_S + 0.1
    assert fleet.request(1)
    assert fleet.request(1)


def test_the_wait_that_a_refused_client_is_told_is_true() -> None:
    fleet = Fleet(Limits(60, 5000, 0), 2)
    for number in range(200):
        fleet.request(number % 2, 10)
    fleet.finish(used=10)
    assert not fleet.request(0, 10)
    wait_s = fleet.edges[0].wait_s(10, fleet.now_s)
    assert 0 < wait_s <= 1
    fleet.now_s += wait_s + 1e-6
    assert fleet.request(0, 10)


def test_headers_say_what_is_left_and_when_all_of_it_is_back() -> None:
    fleet = Fleet(Limits(60, 1000, 0), 1)
    assert fleet.request(0, 100)
    assert dict(rate_headers(fleet.edges[0], fleet.now_s)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "900",
        "x-ratelimit-reset-tokens": "6s",
    }
    assert rate_headers(KeyShare(Limits(0, 0, 5), 0.0), 0.0) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.0121, "13ms"), (1.0, "1s"), (8.64, "8.64s"), (59.9999, "1m0s"), (360.0, "6m0s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_while_usage_svc_is_away_an_edge_admits_by_the_whole_limit_alone() -> None:
    share, now_s = KeyShare(Limits(3, 0, 2), 0.0), 0.0
    admitted = 0
    for _ in range(5):
        share.grant_alone(1, now_s)
        if share.take(1, now_s):
            admitted += 1
            share.settle(1, 1, now_s)
    assert admitted == 3
