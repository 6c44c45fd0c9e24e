"""usage_svc: shares of keys' rates over gRPC, on both engines."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chassis.faults import InvalidArgument
from protos.usage.v1 import usage_pb2 as pb
from tests.harness.usage_service import UsageService, new_id, usage_service
from usage_svc.driver import Query, Script, write_by_script
from usage_svc.key_rate_store import forget


@pytest.fixture
async def usage(database_url: str) -> AsyncIterator[UsageService]:
    async with usage_service(database_url) as service:
        yield service


def demand(key_id: str = "key_1", seq: int = 1, **fields: Any) -> pb.LimitDemand:
    limits = {"requests_per_minute": 60, "tokens_per_minute": 1000, "concurrent_requests": 5}
    return pb.LimitDemand(key_id=key_id, seq=seq, **{**limits, **fields})


async def share(usage: UsageService, holder_id: str, *demands: pb.LimitDemand) -> list[pb.LimitShare]:
    request = pb.ShareLimitsRequest(holder_id=holder_id, demands=demands)
    answer: pb.ShareLimitsResponse = await usage.call(usage.metering.ShareLimits, request)
    return list(answer.shares)


async def test_what_one_edge_was_granted_another_cannot_have(usage: UsageService) -> None:
    [first] = await share(usage, "a", demand(want_requests=40, want_tokens=900, min_tokens=900, want_slots=4))
    assert (first.granted_requests, first.granted_tokens, first.slots) == (40, 900, 4)
    [second] = await share(usage, "b", demand(want_requests=40, want_tokens=900, min_tokens=300, want_slots=4))
    assert second.granted_requests in (20, 21)  # and what has come back meanwhile
    assert (second.granted_tokens, second.slots, second.contended) == (0, 1, True)
    assert 59 <= second.used_requests <= 60


async def test_what_is_brought_back_can_be_had_again(usage: UsageService) -> None:
    await share(usage, "a", demand(want_requests=60, want_tokens=1000, min_tokens=1, want_slots=5))
    await share(usage, "a", demand(seq=2, returned_requests=10, returned_tokens=400, want_slots=2, open_requests=1))
    [other] = await share(usage, "b", demand(want_requests=60, want_tokens=400, min_tokens=400, want_slots=5))
    assert 10 <= other.granted_requests <= 12
    assert (other.granted_tokens, other.slots) == (400, 3)


async def test_a_repeat_is_answered_alike_and_draws_nothing(usage: UsageService) -> None:
    asked = demand(want_requests=30, want_slots=1)
    [first] = await share(usage, "a", asked)
    [repeat] = await share(usage, "a", asked)
    assert repeat == first
    [more] = await share(usage, "a", demand(seq=2, want_requests=60))
    assert 30 <= more.granted_requests <= 32


async def test_open_requests_are_never_taken_away(usage: UsageService) -> None:
    await share(usage, "a", demand(want_slots=5, open_requests=5))
    [lowered] = await share(usage, "a", demand(seq=2, concurrent_requests=2, want_slots=2, open_requests=5))
    assert lowered.slots == 5
    [other] = await share(usage, "b", demand(concurrent_requests=2, want_slots=1))
    assert other.slots == 0


async def test_many_edges_at_once_get_no_more_than_there_is(usage: UsageService) -> None:
    keys = [f"key_{number}" for number in range(5)]

    async def ask(number: int) -> list[pb.LimitShare]:
        order = keys if number % 2 else keys[::-1]
        return await share(
            usage, f"edge-{number}", *(demand(key_id, want_requests=20, want_slots=2) for key_id in order)
        )

    answers = [each for shares in await asyncio.gather(*map(ask, range(8))) for each in shares]
    for key_id in keys:
        mine = [each for each in answers if each.key_id == key_id]
        assert 60 <= sum(each.granted_requests for each in mine) <= 62 + 2
        assert sum(each.slots for each in mine) == 5


async def test_limits_that_a_key_does_not_have_grant_nothing(usage: UsageService) -> None:
    [only] = await share(
        usage, "a", demand(requests_per_minute=0, tokens_per_minute=0, want_requests=5, want_tokens=5, want_slots=9)
    )
    assert (only.granted_requests, only.granted_tokens, only.slots) == (0, 0, 5)


async def test_keys_that_nobody_uses_leave_no_rows(usage: UsageService) -> None:
    await share(usage, "a", demand("old"), demand("new"))

    def age() -> Script[None]:
        yield (Query("UPDATE key_rate SET time_us = 1 WHERE key_id = 'old' RETURNING key_id"),)

    def forgotten() -> Script[list[str]]:
        (rows,) = yield (forget(100),)
        return [str(row[0]) for row in rows]

    await write_by_script(usage.database, age)
    assert await write_by_script(usage.database, forgotten) == ["old"]
    assert [row[0] for row in await usage.rows("SELECT key_id FROM key_rate")] == ["new"]


@pytest.mark.parametrize(
    ("demands", "field"),
    [
        ([demand(), demand()], "demands"),
        ([demand("")], "demands.key_id"),
        ([demand(seq=0)], "demands.seq"),
        ([demand(want_tokens=-1)], "demands.want_tokens"),
        ([demand(want_requests=10**14)], "demands.want_requests"),
    ],
)
async def test_a_wrong_demand_is_named(usage: UsageService, demands: list[pb.LimitDemand], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await share(usage, new_id(), *demands)
    assert [violation.field for violation in caught.value.violations] == [field]
