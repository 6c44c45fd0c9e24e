"""edge: what one address may do without a key."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from multidict import CIMultiDict

from chassis.faults import NotFound
from edge.limits import key_trials
from edge.limits.addresses import Addresses, network_of
from edge.limits.key_trials import KeyTrials
from edge.openai.errors import RequestError


@dataclass
class ManualClock:
    time_s: float = 100.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time_s, UTC)

    def epoch_s(self) -> float:
        return self.time_s

    def monotonic(self) -> float:
        return self.time_s


@dataclass
class Peer:
    peer: str


@dataclass
class Asked:
    """What of a request tells where it came from."""

    connection: Peer
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)


def asked(peer: str, *forwarded: str) -> Any:
    return Asked(Peer(peer), CIMultiDict([("X-Forwarded-For", each) for each in forwarded]))


def addresses(clock: ManualClock, *, hops: int = 0, connections: int = 2, failed: int = 3) -> Addresses:
    return Addresses(clock, trusted_proxy_hops=hops, connections_max=connections, failed_keys_per_minute=failed)


def test_connections_of_an_address_are_bounded_and_an_ended_one_makes_room() -> None:
    here = addresses(ManualClock())
    assert [here.opened("1.1.1.1") for _ in range(3)] == [True, True, False]
    assert here.opened("2.2.2.2")
    here.closed("1.1.1.1")
    assert here.opened("1.1.1.1")


@pytest.mark.parametrize("values", [{"connections": 0}, {"hops": 1}])
def test_connections_are_not_bounded_without_a_limit_and_behind_proxies(values: dict[str, int]) -> None:
    here = addresses(ManualClock(), **values)
    assert all(here.opened("1.1.1.1") for _ in range(100))
    here.closed("1.1.1.1")


async def tried(trials: KeyTrials, client: str, *, found: bool = False, asked: asyncio.Event | None = None) -> int:
    """One key; gives the status that its bearer gets."""
    try:
        async with trials.trial(client):
            if asked is not None:
                await asked.wait()
            if not found:
                raise NotFound("KEY_NOT_FOUND", "no such key")
    except NotFound:
        return 401
    except RequestError as error:
        return error.status
    return 200


async def test_who_tries_too_many_keys_is_told_after_which_time_he_may_try_again() -> None:
    clock = ManualClock()
    trials = addresses(clock).key_trials
    assert [await tried(trials, "1.1.1.1") for _ in range(4)] == [401, 401, 401, 429]
    with pytest.raises(RequestError) as caught:
        async with trials.trial("1.1.1.1"):
            pytest.fail("a key was asked for")
    assert (caught.value.status, caught.value.retry_after_s) == (429, 20)
    assert await tried(trials, "2.2.2.2") == 401
    clock.time_s += 20
    assert await tried(trials, "1.1.1.1") == 401


async def test_a_thousand_guesses_at_once_are_no_more_than_one_after_another() -> None:
    trials, asked = addresses(ManualClock()).key_trials, asyncio.Event()
    guesses = [asyncio.create_task(tried(trials, "1.1.1.1", asked=asked)) for _ in range(1000)]
    await asyncio.sleep(0)
    asked.set()
    statuses = await asyncio.gather(*guesses)
    assert (statuses.count(401), statuses.count(429)) == (3, 997)


async def test_many_keys_that_exist_wait_for_each_other_and_are_all_found() -> None:
    trials, asked = addresses(ManualClock()).key_trials, asyncio.Event()
    customers = [asyncio.create_task(tried(trials, "1.1.1.1", found=True, asked=asked)) for _ in range(100)]
    await asyncio.sleep(0)
    for gone in customers[2:50:7]:  # of those that wait, and of those that ask
        gone.cancel()
    asked.set()
    answers = await asyncio.gather(*customers, return_exceptions=True)
    assert {answer for answer in answers if isinstance(answer, int)} == {200}
    assert len(trials) == 0, "an address whose keys exist is not remembered"


async def test_without_a_limit_nobody_is_told_to_wait() -> None:
    trials = addresses(ManualClock(), failed=0).key_trials
    assert {await tried(trials, "1.1.1.1") for _ in range(1000)} == {401}


async def test_the_addresses_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_trials, "ADDRESSES_MAX", 10)
    trials = addresses(ManualClock()).key_trials
    for number in range(30):
        assert await tried(trials, f"1.1.1.{number}") == 401
    assert len(trials) == 10


@pytest.mark.parametrize(
    ("hops", "forwarded", "client"),
    [
        (0, ["9.9.9.9"], "1.1.1.1"),
        (1, ["9.9.9.9"], "9.9.9.9"),
        (1, ["6.6.6.6, 9.9.9.9"], "9.9.9.9"),
        (2, ["6.6.6.6, 9.9.9.9", "8.8.8.8"], "9.9.9.9"),
        (1, ["9.9.9.9:51234"], "9.9.9.9"),
        (1, ["[2001:db8::1]:443"], "2001:db8::/64"),
        (1, ["[2001:db8::1]"], "2001:db8::/64"),
        (1, [], "1.1.1.1"),
        (3, ["9.9.9.9"], "1.1.1.1"),
    ],
)
def test_the_client_is_whom_the_outermost_trusted_proxy_saw(hops: int, forwarded: list[str], client: str) -> None:
    assert addresses(ManualClock(), hops=hops).client_of(asked("1.1.1.1", *forwarded)) == client


def test_an_ipv6_client_is_its_network() -> None:
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert network_of("::ffff:1.2.3.4") == "1.2.3.4"
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("unknown" * 100) == ("unknown" * 100)[:64]
