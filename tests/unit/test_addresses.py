"""edge: what one address may do without a key."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from multidict import CIMultiDict

from edge.limits.addresses import Addresses, network_of
from edge.openai.errors import RequestError


@dataclass
class ManualClock:
    time_s: float = 100.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time_s, UTC)

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


def test_who_tries_too_many_keys_is_told_after_which_time_he_may_try_again() -> None:
    clock = ManualClock()
    here = addresses(clock)
    for _ in range(3):
        here.may_try_a_key("1.1.1.1")
        here.key_failed("1.1.1.1")
    with pytest.raises(RequestError) as caught:
        here.may_try_a_key("1.1.1.1")
    assert (caught.value.status, caught.value.retry_after_s) == (429, 20)
    here.may_try_a_key("2.2.2.2")
    clock.time_s += 20
    here.may_try_a_key("1.1.1.1")


def test_without_a_limit_nobody_is_told_to_wait() -> None:
    here = addresses(ManualClock(), failed=0)
    for _ in range(1000):
        here.key_failed("1.1.1.1")
    here.may_try_a_key("1.1.1.1")


@pytest.mark.parametrize(
    ("hops", "forwarded", "client"),
    [
        (0, ["9.9.9.9"], "1.1.1.1"),
        (1, ["9.9.9.9"], "9.9.9.9"),
        (1, ["6.6.6.6, 9.9.9.9"], "9.9.9.9"),
        (2, ["6.6.6.6, 9.9.9.9", "8.8.8.8"], "9.9.9.9"),
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
