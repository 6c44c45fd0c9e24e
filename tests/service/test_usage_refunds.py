"""usage_svc: charges given back, last uses of keys, and requests as customers filter them, on both engines."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.faults import AlreadyExists, FailedPrecondition, Fault, InvalidArgument, NotFound
from protos.usage.v1 import usage_pb2 as pb
from tests.harness.eventually import eventually
from tests.harness.usage_service import USD, UsageService, event, new_id, uncharged, usage_service

MIDNIGHT_S = 1_760_000_000 // 86_400 * 86_400
COST = 200_000  # of a plain event


@pytest.fixture
async def usage(database_url: str) -> AsyncIterator[UsageService]:
    async with usage_service(database_url) as service:
        yield service
        await service.audit()


async def charged(usage: UsageService, *events: pb.UsageEvent) -> None:
    edge = await usage.open_edge()
    edge.spool(*events)
    assert list((await edge.ship()).exceptions) == []


async def request_of(usage: UsageService, request_id: str) -> pb.RequestSummary:
    answer = await usage.call(usage.reading.GetRequest, pb.GetRequestRequest(account_id="acme", request_id=request_id))
    summary: pb.RequestSummary = answer.request
    return summary


async def test_a_charge_is_given_back_in_parts_and_never_beyond_itself(usage: UsageService) -> None:
    await usage.credit("acme", USD)
    sent = event("acme")
    await charged(usage, sent)
    first = await usage.refund(sent.request_id, 50_000, reason="slow")
    assert (first.refunded_nanousd, first.balance.posted_nanousd) == (50_000, USD - 150_000)
    assert first.balance.available_nanousd == USD - 150_000
    with pytest.raises(FailedPrecondition) as caught:
        await usage.refund(sent.request_id, 150_001)
    assert caught.value.reason == "REFUND_TOO_LARGE"
    rest = await usage.refund(sent.request_id)
    assert rest.refunded_nanousd == 150_000
    with pytest.raises(FailedPrecondition):
        await usage.refund(sent.request_id)
    found = await request_of(usage, sent.request_id)
    assert found == rest.request
    assert (found.charged_nanousd, found.refunded_nanousd) == (COST, COST)
    assert [(each.amount_nanousd, each.reason) for each in found.refunds] == [
        (50_000, "slow"),
        (150_000, "an outage of ours"),
    ]
    balance = await usage.balance("acme")
    assert (balance.posted_nanousd, balance.charged_nanousd, balance.refunded_nanousd) == (USD, COST, COST)
    (total,) = await usage.usage("acme")
    assert (total.charged_nanousd, total.refunded_nanousd) == (COST, COST)
    entries = (await usage.call(usage.reading.ListEntries, pb.ListEntriesRequest(account_id="acme"))).entries
    of_request = [each for each in entries if each.request_id == sent.request_id]
    assert [(each.kind, each.debit_account_id, each.amount_nanousd) for each in of_request] == [
        (pb.ENTRY_KIND_WAIVER, "waiver_expense", 150_000),
        (pb.ENTRY_KIND_WAIVER, "waiver_expense", 50_000),
        (pb.ENTRY_KIND_CHARGE, "acme", COST),
    ]


async def test_a_refund_sent_many_times_at_once_moves_once(usage: UsageService) -> None:
    sent = event("acme")
    await charged(usage, sent)
    same = {"request_id": "refund 1"}
    answers = await asyncio.gather(*(usage.refund(sent.request_id, 70_000, **same) for _ in range(6)))
    assert {answer.balance.refunded_nanousd for answer in answers} == {70_000}
    with pytest.raises(AlreadyExists):
        await usage.refund(sent.request_id, 70_001, **same)


async def test_refunds_at_once_never_give_back_more_than_was_charged(usage: UsageService) -> None:
    sent = event("acme")
    await charged(usage, sent)
    answers = await asyncio.gather(*(usage.refund(sent.request_id, 80_000) for _ in range(6)), return_exceptions=True)
    assert sum(not isinstance(answer, Fault) for answer in answers) == 2
    assert (await usage.balance("acme")).refunded_nanousd == 160_000


async def test_what_was_not_charged_cannot_be_given_back(usage: UsageService) -> None:
    await usage.credit("acme", USD)
    free, theirs = uncharged("acme", pb.OUTCOME_NONE), event("rival")
    await charged(usage, free, theirs)
    with pytest.raises(FailedPrecondition):
        await usage.refund(free.request_id)
    for request_id in (theirs.request_id, new_id(), "nonsense"):
        with pytest.raises(NotFound) as caught:
            await usage.refund(request_id)
        assert caught.value.reason == "REQUEST_NOT_FOUND"


BAD_REFUNDS: list[tuple[str, dict[str, Any]]] = [
    ("amount_nanousd", {"amount_nanousd": -1}),
    ("reason", {"reason": ""}),
    ("reason", {"reason": "r" * 501}),
    ("account_id", {"account_id": "revenue"}),
    ("charged_request_id", {"charged_request_id": ""}),
    ("request_id", {"request_id": ""}),
]


async def test_a_refund_out_of_bounds_is_refused_by_its_field(usage: UsageService) -> None:
    for field, values in BAD_REFUNDS:
        with pytest.raises(InvalidArgument) as caught:
            await usage.refund(**{"charged_request_id": new_id(), **values})
        assert [violation.field for violation in caught.value.violations] == [field]


async def uses(usage: UsageService, account_id: str, *key_ids: str) -> dict[str, int]:
    answer = await usage.call(usage.reading.ListKeyUses, pb.ListKeyUsesRequest(account_id=account_id, key_ids=key_ids))
    return {each.key_id: each.last_use_time.seconds - MIDNIGHT_S for each in answer.uses}


async def test_the_last_use_of_a_key_is_the_end_of_its_latest_request(usage: UsageService) -> None:
    await charged(
        usage,
        event("acme", key_id="k1", end_time_s=MIDNIGHT_S + 10),
        event("acme", key_id="k1", end_time_s=MIDNIGHT_S + 20),
        event("acme", key_id="k2", end_time_s=MIDNIGHT_S + 5),
        event("rival", key_id="k3", end_time_s=MIDNIGHT_S + 99),
    )

    async def told() -> bool:
        return await uses(usage, "acme", "k1", "k2", "k3", "k4") == {"k1": 20, "k2": 5}

    await eventually(told)
    assert await uses(usage, "acme") == {}
    await charged(
        usage,
        event("acme", key_id="k1", end_time_s=MIDNIGHT_S + 15),  # late: it changes nothing
        event("acme", key_id="k2", end_time_s=MIDNIGHT_S + 30),
    )

    async def moved() -> bool:
        return await uses(usage, "acme", "k1", "k2") == {"k1": 20, "k2": 30}

    await eventually(moved)


async def listed(usage: UsageService, **values: Any) -> list[str]:
    request = pb.ListRequestsRequest(**{"account_id": "acme", **values})
    answer: pb.ListRequestsResponse = await usage.call(usage.reading.ListRequests, request)
    return [each.event.request_id for each in answer.requests]


async def test_requests_are_filtered_by_model_key_time_and_failure(usage: UsageService) -> None:
    events = [
        event("acme", model_id="a", key_id="k1", end_time_s=MIDNIGHT_S),
        event("acme", model_id="b", key_id="k1", end_time_s=MIDNIGHT_S + 1),
        event("acme", model_id="a", key_id="k2", end_time_s=MIDNIGHT_S + 2),
        uncharged("acme", pb.OUTCOME_NONE, model_id="a", key_id="k2", end_time_s=MIDNIGHT_S + 3),
    ]
    await charged(usage, *events)
    ids = [each.request_id for each in events]
    assert await listed(usage) == ids[::-1]
    assert await listed(usage, model_id="a") == [ids[3], ids[2], ids[0]]
    assert await listed(usage, key_id="k1") == [ids[1], ids[0]]
    assert await listed(usage, model_id="a", key_id="k1") == [ids[0]]
    assert await listed(usage, errors_only=True) == [ids[3]]
    start, end = Timestamp(seconds=MIDNIGHT_S + 1), Timestamp(seconds=MIDNIGHT_S + 3)
    assert await listed(usage, start_time=start, end_time=end) == [ids[2], ids[1]]
    assert await listed(usage, model_id="no/such") == []


async def test_a_listing_goes_on_behind_a_request_of_the_account_and_of_no_other(usage: UsageService) -> None:
    sent = [event("acme", end_time_s=MIDNIGHT_S + n // 2) for n in range(5)]
    theirs = event("rival", end_time_s=MIDNIGHT_S)
    await charged(usage, *sent, theirs)
    everything = await listed(usage)
    assert await listed(usage, after_request_id=everything[1]) == everything[2:]
    assert await listed(usage, after_request_id=everything[-1]) == []
    for cursor in (theirs.request_id, new_id(), "nonsense", sent[0].request_id.upper()):
        with pytest.raises(InvalidArgument) as caught:
            await listed(usage, after_request_id=cursor)
        assert [violation.field for violation in caught.value.violations] == ["after_request_id"]
