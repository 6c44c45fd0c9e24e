"""usage_svc: the whole protocol over gRPC, on both engines."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from chassis.faults import FailedPrecondition, InvalidArgument, NotFound
from edge.metering.usage_event import encode_event
from protos.usage.v1 import usage_pb2 as pb
from tests.harness.usage_service import USD, UsageService, event, new_id, spooled, uncharged, usage_service


@pytest.fixture
async def usage(database_url: str) -> AsyncIterator[UsageService]:
    async with usage_service(database_url) as service:
        yield service
        await service.audit()


async def test_a_request_is_held_charged_returned_and_sealed_to_the_nano(usage: UsageService) -> None:
    await usage.credit("acme", 5 * USD)
    edge = await usage.open_edge()
    await edge.heartbeat()
    grant = await edge.acquire("acme", USD, 1000)
    assert grant.outcome == pb.LEASE_OUTCOME_GRANTED
    assert (grant.granted_nanousd, grant.granted_total_nanousd, grant.near_limit) == (USD, USD, False)
    assert grant.available_nanousd == 5 * USD  # 4 and the grace of 1
    balance = await usage.balance("acme")
    assert (balance.posted_nanousd, balance.reserved_nanousd) == (5 * USD, USD)

    edge.spool(event("acme", grant.lease_id, prompt=100, completion=50))  # 100 * 1000 + 50 * 2000
    edge.spool(pb.LeaseReturn(lease_id=grant.lease_id, returned_total_nanousd=600_000_000))
    answer = await edge.ship()
    assert (answer.next_seq, list(answer.exceptions)) == (3, [])
    balance = await usage.balance("acme")
    assert balance.charged_nanousd == 200_000
    assert balance.posted_nanousd == 5 * USD - 200_000
    assert balance.reserved_nanousd == USD - 200_000 - 600_000_000

    assert await edge.seal() == USD - 200_000 - 600_000_000
    balance = await usage.balance("acme")
    assert (balance.reserved_nanousd, balance.posted_nanousd) == (0, 5 * USD - 200_000)
    assert (balance.charged_nanousd, balance.credited_nanousd) == (200_000, 5 * USD)


async def test_a_charge_inside_its_lease_does_not_touch_the_account_row(usage: UsageService) -> None:
    await usage.credit("acme", 5 * USD)
    edge = await usage.open_edge()
    grant = await edge.acquire("acme", USD)
    before = await usage.rows("SELECT * FROM account")
    edge.spool(event("acme", grant.lease_id))
    await edge.ship()
    assert await usage.rows("SELECT * FROM account") == before


async def test_a_batch_beyond_the_cursor_posts_nothing_and_names_the_cursor(usage: UsageService) -> None:
    edge = await usage.open_edge()
    edge.spool(event("acme"), event("acme"), event("acme"))
    answer = await edge.send(2, edge.records[1:])
    assert answer.next_seq == 1
    assert (await usage.balance("acme")).charged_nanousd == 0
    assert (await edge.ship()).next_seq == 4
    assert (await usage.balance("acme")).charged_nanousd == 600_000


async def test_the_same_batch_twice_and_an_overlapping_one_are_charged_once(usage: UsageService) -> None:
    edge = await usage.open_edge()
    edge.spool(event("acme"), event("acme"))
    first = await edge.send(1, edge.records)
    again = await edge.send(1, edge.records)
    assert first.next_seq == again.next_seq == 3
    assert list(again.exceptions) == []
    edge.spool(event("acme"))
    assert (await edge.send(1, edge.records)).next_seq == 4
    assert (await edge.send(3, [])).next_seq == 4
    assert (await usage.balance("acme")).charged_nanousd == 600_000


async def test_a_request_under_another_position_or_session_is_a_duplicate(usage: UsageService) -> None:
    edge, other = await usage.open_edge(), await usage.open_edge()
    once = event("acme")
    edge.spool(once, event("acme"), once)
    answer = await edge.ship()
    assert [(e.seq, e.outcome) for e in answer.exceptions] == [(3, pb.RECORD_OUTCOME_DUPLICATE)]
    other.spool(once, event("acme"))
    answer = await other.ship()
    assert answer.next_seq == 3
    assert [(e.seq, e.outcome) for e in answer.exceptions] == [(1, pb.RECORD_OUTCOME_DUPLICATE)]
    assert (await usage.balance("acme")).charged_nanousd == 600_000


@pytest.mark.parametrize("lost_first", [True, False])
@pytest.mark.parametrize("batches", [1, 2])
async def test_a_measurement_supersedes_edge_lost_in_either_order(
    usage: UsageService, lost_first: bool, batches: int
) -> None:
    edge = await usage.open_edge()
    measured = event("acme")
    lost = uncharged(
        "acme", pb.OUTCOME_EDGE_LOST, request_id=measured.request_id, ending=pb.ENDING_EDGE_LOST, status_code=0
    )
    for number, record in enumerate([lost, measured] if lost_first else [measured, lost]):
        edge.spool(record)
        if number < batches:
            await edge.ship()
    await edge.ship()
    assert (await usage.balance("acme")).charged_nanousd == 200_000
    found = await usage.call(
        usage.reading.GetRequest, pb.GetRequestRequest(account_id="acme", request_id=measured.request_id)
    )
    assert found.request.event.outcome == pb.OUTCOME_MEASURED


BAD: dict[str, dict[str, Any]] = {
    "TOKENS_IMPLAUSIBLE": {"prompt": 1_000_001},
    "NUMBER_INVALID": {"completion": -1},
    "REQUEST_ID_INVALID": {"request_id": "018f0000-0000-4000-8000-000000000000"},
    "TOO_OLD": {"request_id": "017f0000-0000-7000-8000-000000000000"},
    "FROM_THE_FUTURE": {"request_id": "0fff0000-0000-7000-8000-000000000000"},
    "SCHEMA_MISSING": {"schema": 0},
    "ENUM_UNKNOWN": {"outcome": 0},
    "SOURCE_CONTRADICTS_OUTCOME": {"source": pb.USAGE_SOURCE_NONE},
    "TIME_INVALID": {"end_time": None},
    "PRICE_INVALID": {"price": pb.PriceVector(price_version="price-2", prompt="a lot", completion="1")},
    "PRICE_CONTRADICTS_VERSION": {"price": pb.PriceVector(price_version="price-1", prompt="1", completion="1")},
    "CHARGE_TOO_LARGE": {
        "prompt": 10**9,
        "plausible_tokens_max": 10**9,
        "price": pb.PriceVector(price_version="dear", prompt="1000", completion="0"),
    },
    "TEXT_INVALID": {"model_id": "a\0b"},
}


@pytest.mark.parametrize("form", [spooled, lambda message: message], ids=["row", "event"])
async def test_what_is_not_plausible_is_set_aside_and_what_surrounds_it_is_posted(
    usage: UsageService, form: Callable[[Any], Any]
) -> None:
    edge = await usage.open_edge()
    edge.spool(event("acme"))
    for fields in BAD.values():
        edge.spool(form(event("acme", **{"end_time_s": 1_700_000_000, **fields})))
    edge.spool(b"torn", pb.LeaseReturn(lease_id=new_id(), returned_total_nanousd=1))
    edge.records.append(pb.Record())
    edge.spool(event("acme"))
    answer = await edge.ship()
    assert answer.next_seq == len(edge.records) + 1
    reasons = [*BAD, "UNREADABLE", "LEASE_UNKNOWN", "EMPTY_RECORD"]
    assert [(e.seq, e.reason) for e in answer.exceptions] == list(enumerate(reasons, start=2))
    assert {e.outcome for e in answer.exceptions} == {pb.RECORD_OUTCOME_QUARANTINED}
    kept = await usage.rows("SELECT seq, reason, record FROM quarantine ORDER BY seq")
    assert [row[1] for row in kept] == reasons
    assert [pb.Record.FromString(row[2]) for row in kept] == edge.records[1:-1]
    assert (await usage.balance("acme")).charged_nanousd == 400_000


async def test_a_price_version_means_the_same_price_for_every_session(usage: UsageService) -> None:
    first, second = await usage.open_edge(), await usage.open_edge()
    first.spool(event("acme"))
    await first.ship()
    same = pb.PriceVector(
        price_version="price-1", prompt="0.0000010", completion="0.000002", input_cache_read="0.0000005", image="0.01"
    )
    second.spool(event("acme", price=same))
    second.spool(event("acme", price=pb.PriceVector(price_version="price-1", prompt="0.1", completion="0.1")))
    answer = await second.ship()
    assert [e.reason for e in answer.exceptions] == ["PRICE_CONTRADICTS_VERSION"]
    assert (await usage.balance("acme")).charged_nanousd == 400_000


async def test_a_row_is_posted_as_the_event_that_it_says(usage: UsageService) -> None:
    edge = await usage.open_edge()
    attempts = [pb.Attempt(deployment_id="one", status_code=503, failure="status", duration_ms=9), pb.Attempt()]
    tokens = pb.TokenCounts(
        prompt_tokens=100,
        completion_tokens=50,
        cached_tokens=4,
        cache_write_tokens=3,
        reasoning_tokens=5,
        audio_tokens=6,
        image_tokens=7,
        images=2,
    )
    whole = event("acme", tokens=tokens, attempts=attempts, first_byte_ms=11, end_time_s=1_700_000_000)
    whole.end_time.nanos = 123_456_000
    bare = uncharged("acme", pb.OUTCOME_EDGE_LOST, price=None, attempts=[], lease_id="", key_id="", deployment_id="")
    edge.spool(spooled(whole), spooled(bare))
    assert not (await edge.ship()).exceptions
    for sent in (whole, bare):
        request = pb.GetRequestRequest(account_id="acme", request_id=sent.request_id)
        assert (await usage.call(usage.reading.GetRequest, request)).request.event == sent


GOOD_ROW: list[Any] = msgspec.msgpack.decode(encode_event(spooled(event("acme", request_id=new_id()))))
SCHEMA, PRICE_BYTES, STATUS, STREAMED, HOLD, ATTEMPTS = 0, 1, 9, 10, 14, 28


def _row(changed: dict[int, Any]) -> bytes:
    return msgspec.msgpack.encode([changed.get(index, value) for index, value in enumerate(GOOD_ROW)])


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"\xc1",
        b"\x91" * 2000,
        msgspec.msgpack.encode({"schema": 1}),
        msgspec.msgpack.encode(GOOD_ROW[:-1]),
        msgspec.msgpack.encode([*GOOD_ROW, "more"]),
        _row({PRICE_BYTES: b"\xff"}),
        _row({STATUS: 2**31}),
        _row({STREAMED: 1}),
        _row({HOLD: 2**63}),
        _row({HOLD: 1.5}),
        _row({ATTEMPTS: [["one", 2**31, "", 1]]}),
        _row({ATTEMPTS: [["one", 200, ""]]}),
        _row({}).replace(b"acme", b"acm\xff"),
    ],
)
async def test_a_row_that_is_not_what_its_layout_says_is_set_aside(sqlite_url: str, row: bytes) -> None:
    async with usage_service(sqlite_url) as usage:
        edge = await usage.open_edge()
        edge.spool(event("acme"))
        edge.records.append(pb.Record(event_row=row))
        edge.spool(spooled(event("acme")))
        answer = await edge.ship()
        assert [(e.seq, e.reason) for e in answer.exceptions] == [(2, "ROW_INVALID")]
        assert (await usage.balance("acme")).charged_nanousd == 400_000


@pytest.mark.parametrize("length", [len(GOOD_ROW), len(GOOD_ROW) + 1])
async def test_a_row_of_a_newer_layout_waits_and_the_ones_before_it_do_not(sqlite_url: str, length: int) -> None:
    async with usage_service(sqlite_url) as usage:
        edge = await usage.open_edge()
        edge.spool(spooled(event("acme")))
        newer = [2, *GOOD_ROW[1:], "more"][:length]
        edge.records.append(pb.Record(event_row=msgspec.msgpack.encode(newer)))
        assert (await edge.ship()).next_seq == 2
        with pytest.raises(FailedPrecondition) as caught:
            await edge.ship()
        assert caught.value.reason == "SCHEMA_TOO_NEW"
        assert await usage.rows("SELECT * FROM quarantine") == []


async def test_a_record_of_a_newer_layout_waits_and_the_ones_before_it_do_not(usage: UsageService) -> None:
    edge = await usage.open_edge()
    edge.spool(event("acme"), event("acme", schema=2), event("acme"))
    answer = await edge.ship()
    assert answer.next_seq == 2
    with pytest.raises(FailedPrecondition) as caught:
        await edge.ship()
    assert caught.value.reason == "SCHEMA_TOO_NEW"
    unknown_kind = pb.Record()
    unknown_kind.MergeFromString(b"\xa2\x06\x01x")  # field 100, which this contract does not have
    with pytest.raises(FailedPrecondition) as caught:
        await edge.send(2, [unknown_kind])
    assert caught.value.reason == "SCHEMA_TOO_NEW"
    assert (await usage.balance("acme")).charged_nanousd == 200_000
    assert await usage.rows("SELECT * FROM quarantine") == []


async def test_outcomes_that_cost_nothing_keep_their_row_and_make_no_entry(usage: UsageService) -> None:
    edge = await usage.open_edge()
    for outcome in (pb.OUTCOME_WAIVED, pb.OUTCOME_NONE, pb.OUTCOME_EDGE_LOST):
        edge.spool(uncharged("acme", outcome, price=None))
    edge.spool(uncharged("acme", pb.OUTCOME_WAIVED, prompt=100))
    assert list((await edge.ship()).exceptions) == []
    assert await usage.rows("SELECT * FROM entry") == []
    (row,) = await usage.usage("acme")
    assert (row.requests, row.errors, row.tokens.prompt_tokens, row.charged_nanousd) == (4, 4, 100, 0)


async def test_an_estimate_is_never_charged_above_its_hold(usage: UsageService) -> None:
    edge = await usage.open_edge()
    estimate: dict[str, Any] = {"outcome": pb.OUTCOME_ESTIMATED, "source": pb.USAGE_SOURCE_ESTIMATED}
    edge.spool(event("acme", hold=150_000, **estimate), event("acme", hold=USD, **estimate))
    await edge.ship()
    assert (await usage.balance("acme")).charged_nanousd == 150_000 + 200_000


async def test_a_charge_beyond_its_lease_is_labelled_and_taken_from_the_account(usage: UsageService) -> None:
    await usage.credit("acme", 5 * USD)
    edge = await usage.open_edge()
    grant = await edge.acquire("acme", 250_000, 1)
    edge.spool(event("acme", grant.lease_id), event("acme", grant.lease_id))
    await edge.ship()
    balance = await usage.balance("acme")
    assert (balance.reserved_nanousd, balance.posted_nanousd) == (0, 5 * USD - 400_000)
    listed = await usage.call(usage.reading.ListEntries, pb.ListEntriesRequest(account_id="acme"))
    assert sorted(e.overflow_nanousd for e in listed.entries) == [0, 0, 150_000]
    assert await usage.rows("SELECT overflow_nanousd FROM account") == [(150_000,)]
    # The edge counts the overflow against its own copy of the lease; what it gets next makes that good, and once it
    # has returned all that it believes to have, nothing is left behind.
    grant = await edge.acquire("acme", 500_000, 1, lease_id=grant.lease_id)
    edge.spool(pb.LeaseReturn(lease_id=grant.lease_id, returned_total_nanousd=500_000 - 150_000))
    await edge.ship()
    assert (await usage.balance("acme")).reserved_nanousd == 0


async def test_a_charge_without_its_lease_is_paid_by_whoever_made_the_request(usage: UsageService) -> None:
    await usage.credit("acme", 5 * USD)
    edge, other = await usage.open_edge(), await usage.open_edge()
    grant = await edge.acquire("acme", USD)
    other.spool(event("acme", grant.lease_id), event("rival", grant.lease_id), event("rival", new_id()))
    assert list((await other.ship()).exceptions) == []
    assert (await usage.balance("acme")).reserved_nanousd == USD
    assert (await usage.balance("acme")).charged_nanousd == 200_000
    assert (await usage.balance("rival")).posted_nanousd == -400_000


async def test_returns_are_cumulative_and_never_exceed_what_is_left(usage: UsageService) -> None:
    await usage.credit("acme", 5 * USD)
    edge = await usage.open_edge()
    grant = await edge.acquire("acme", 1_000_000)

    async def give_back(total: int) -> int:
        edge.spool(pb.LeaseReturn(lease_id=grant.lease_id, returned_total_nanousd=total))
        await edge.ship()
        return (await usage.balance("acme")).reserved_nanousd

    assert await give_back(300_000) == 700_000
    assert await give_back(300_000) == 700_000
    assert await give_back(200_000) == 700_000
    assert await give_back(500_000) == 500_000
    edge.spool(event("acme", grant.lease_id))
    await edge.ship()
    assert await give_back(10**18) == 0
    with pytest.raises(FailedPrecondition):
        await edge.seal(end_seq=99)
    assert (await usage.balance("acme")).posted_nanousd == 5 * USD - 200_000


async def test_the_same_demand_gets_the_same_grant_and_a_late_copy_gets_nothing(usage: UsageService) -> None:
    await usage.credit("acme", 5 * USD)
    edge = await usage.open_edge()
    first = await edge.acquire("acme", USD)
    await edge.acquire("acme", USD)
    assert await edge.acquire("acme", USD, lease_id=first.lease_id, seq=1) == first
    second = await edge.acquire("acme", USD, lease_id=first.lease_id, seq=2)
    assert second.granted_total_nanousd == 2 * USD
    late = await edge.acquire("acme", USD, lease_id=first.lease_id, seq=1)
    assert (late.outcome, late.granted_nanousd) == (pb.LEASE_OUTCOME_SUPERSEDED, 0)
    assert late.granted_total_nanousd == 2 * USD
    assert (await usage.balance("acme")).reserved_nanousd == 3 * USD


async def test_many_demands_are_answered_in_order_by_one_call(usage: UsageService) -> None:
    await usage.credit("acme", USD)
    edge = await usage.open_edge()
    demands = [
        pb.LeaseDemand(lease_id=new_id(), account_id=account, seq=1, want_nanousd=want, min_nanousd=1)
        for account, want in (("acme", 1_500_000_000), ("nobody", 1), ("acme", 499_999_990), ("acme", 20))
    ]
    answer = await usage.call(usage.metering.Acquire, pb.AcquireRequest(session=edge.session, demands=demands))
    assert [grant.lease_id for grant in answer.grants] == [demand.lease_id for demand in demands]
    # 2 USD of headroom: a part, nothing, all but ten, and one hold of those, since that is near the limit.
    assert [grant.granted_nanousd for grant in answer.grants] == [1_500_000_000, 0, 499_999_990, 1]
    assert answer.grants[3].near_limit


async def test_funds_used_up_and_funds_held_are_told_apart(usage: UsageService) -> None:
    edge = await usage.open_edge()
    refused = await edge.acquire("nobody", USD)
    assert refused.outcome == pb.LEASE_OUTCOME_FUNDS_USED_UP
    await usage.credit("acme", USD)
    await usage.set_grace("acme", 0)
    grant = await edge.acquire("acme", USD)
    assert grant.granted_nanousd == USD
    held = await edge.acquire("acme", 1000, 1000)
    assert (held.outcome, held.granted_nanousd) == (pb.LEASE_OUTCOME_FUNDS_HELD, 0)
    one_day_under_held = await edge.acquire("acme", 2 * USD, 2 * USD)
    assert one_day_under_held.outcome == pb.LEASE_OUTCOME_FUNDS_HELD
    edge.spool(event("acme", grant.lease_id, prompt=1_000_000, completion=0))
    await edge.ship()
    spent = await edge.acquire("acme", 1000, 1000)
    assert spent.outcome == pb.LEASE_OUTCOME_FUNDS_USED_UP
    assert (await usage.balance("acme")).posted_nanousd == 0
    await usage.credit("acme", USD)
    assert (await edge.acquire("acme", 1000, 1000)).outcome == pb.LEASE_OUTCOME_GRANTED


async def test_near_the_limit_a_grant_is_exactly_one_hold(usage: UsageService) -> None:
    await usage.credit("acme", 20_000)
    await usage.set_grace("acme", 0)
    edge = await usage.open_edge()
    whole = await edge.acquire("acme", 5_000, 1_000)
    assert (whole.granted_nanousd, whole.near_limit) == (5_000, False)
    single = await edge.acquire("acme", 5_000, 1_000)
    assert (single.granted_nanousd, single.near_limit) == (1_000, True)


async def test_a_fenced_session_may_record_and_seal_but_not_acquire(usage: UsageService) -> None:
    await usage.credit("acme", 5 * USD)
    old = await usage.open_edge()
    grant = await old.acquire("acme", USD)
    old.spool(event("acme", grant.lease_id), event("acme", grant.lease_id))
    await old.send(1, old.records[:1])
    new = await usage.open_edge(old.session.spool_uuid)
    assert new.session.incarnation == old.session.incarnation + 1
    (undrained,) = new.undrained
    assert undrained.session == old.session
    assert (undrained.state, undrained.next_seq) == (pb.SESSION_STATE_LOST, 2)
    for call in (old.heartbeat(), old.acquire("acme", USD)):
        with pytest.raises(FailedPrecondition) as caught:
            await call
        assert caught.value.reason == "SESSION_FENCED"
    assert (await usage.balance("acme")).reserved_nanousd == USD - 200_000  # fencing frees nothing

    with pytest.raises(FailedPrecondition) as caught:
        await old.seal()
    assert caught.value.reason == "SPOOL_NOT_INGESTED"
    assert (await old.send(2, old.records[1:])).next_seq == 3
    assert await old.seal() == USD - 400_000
    assert await old.seal() == USD - 400_000
    assert (await old.send(1, old.records)).next_seq == 3  # a late copy of what is there
    with pytest.raises(FailedPrecondition) as caught:
        await old.send(3, [pb.Record(event=event("acme"))])
    assert caught.value.reason == "SESSION_DRAINED"
    third = await usage.open_edge(old.session.spool_uuid)
    assert [each.session for each in third.undrained] == [new.session]
    assert (await usage.balance("acme")).reserved_nanousd == 0


async def test_a_spool_that_lost_its_end_can_be_sealed(usage: UsageService) -> None:
    edge = await usage.open_edge()
    edge.spool(event("acme"), event("acme"))
    await edge.ship()
    assert await edge.seal(end_seq=2) == 0


async def test_opening_twice_with_one_request_id_gives_one_session(usage: UsageService) -> None:
    spool_uuid = str(uuid.uuid4())
    edges = await asyncio.gather(*(usage.open_edge(spool_uuid, "the same") for _ in range(8)))
    assert {edge.session.incarnation for edge in edges} == {1}
    others = await asyncio.gather(*(usage.open_edge(spool_uuid) for _ in range(8)))
    assert sorted(edge.session.incarnation for edge in others) == list(range(2, 10))


async def test_a_session_that_nobody_opened_is_fenced_and_takes_no_records(usage: UsageService) -> None:
    edge = await usage.open_edge()
    edge.session.incarnation = 7
    with pytest.raises(FailedPrecondition):
        await edge.heartbeat()
    with pytest.raises(FailedPrecondition):
        await edge.acquire("acme", 1)
    for call in (edge.send(1, [pb.Record(event=event("acme"))]), edge.seal()):
        with pytest.raises(NotFound) as caught:
            await call
        assert caught.value.reason == "SESSION_UNKNOWN"


async def test_fifty_acquires_at_once_never_take_more_than_there_is(usage: UsageService) -> None:
    await usage.credit("acme", 30_000)
    await usage.set_grace("acme", 1_000)
    edges = [await usage.open_edge() for _ in range(5)]
    grants = await asyncio.gather(*(edges[n % 5].acquire("acme", 1_000, 1_000) for n in range(50)))
    assert sum(grant.granted_nanousd for grant in grants) == 31_000
    assert sum(grant.outcome == pb.LEASE_OUTCOME_FUNDS_HELD for grant in grants) == 19
    balance = await usage.balance("acme")
    assert (balance.available_nanousd, balance.reserved_nanousd) == (-1_000, 31_000)


async def test_batches_of_many_sessions_for_the_same_accounts_are_all_posted(usage: UsageService) -> None:
    accounts = ["acme", "bell", "core"]
    for account in accounts:
        await usage.credit(account, 5 * USD)
    edges = [await usage.open_edge() for _ in range(6)]
    shared = [event(account) for account in accounts]
    for number, edge in enumerate(edges):
        for account in accounts if number % 2 else reversed(accounts):
            grant = await edge.acquire(account, 1_000_000)
            edge.spool(*(event(account, grant.lease_id) for _ in range(6)))  # the last one overflows
            edge.spool(pb.LeaseReturn(lease_id=grant.lease_id, returned_total_nanousd=1_000_000))
        edge.spool(*(shared if number % 2 else reversed(shared)))
    answers = await asyncio.gather(*(edge.ship() for edge in edges))
    assert sum(len(answer.exceptions) for answer in answers) == 5 * len(shared)
    for account in accounts:
        balance = await usage.balance(account)
        assert balance.charged_nanousd == (6 * 6 + 1) * 200_000
        assert balance.reserved_nanousd == 0


BAD_DEMANDS: list[tuple[str, dict[str, Any]]] = [
    ("session.spool_uuid", {"session": pb.Session(spool_uuid="A", incarnation=1)}),
    ("session.incarnation", {"session": pb.Session(spool_uuid=str(uuid.uuid4()))}),
    ("demands.lease_id", {"lease_id": ""}),
    ("demands.account_id", {"account_id": ""}),
    ("demands.account_id", {"account_id": "revenue"}),
    ("demands.account_id", {"account_id": "a" * 101}),
    ("demands.seq", {"seq": 0}),
    ("demands.min_nanousd", {"min_nanousd": 0}),
    ("demands.want_nanousd", {"want_nanousd": 10**18 + 1}),
]


async def test_a_demand_out_of_bounds_is_refused_by_its_field(usage: UsageService) -> None:
    edge = await usage.open_edge()
    for field, change in BAD_DEMANDS:
        fields = {"lease_id": new_id(), "account_id": "a", "seq": 1, "want_nanousd": 1, "min_nanousd": 1, **change}
        session = fields.pop("session", edge.session)
        request = pb.AcquireRequest(session=session, demands=[pb.LeaseDemand(**fields)])
        with pytest.raises(InvalidArgument) as caught:
            await usage.call(usage.metering.Acquire, request)
        assert [violation.field for violation in caught.value.violations] == [field]


async def test_a_lease_of_another_session_cannot_be_drawn_on(usage: UsageService) -> None:
    await usage.credit("acme", 5 * USD)
    await usage.credit("rival", 5 * USD)
    edge, other = await usage.open_edge(), await usage.open_edge()
    grant = await edge.acquire("acme", USD)
    for thief, account in ((other, "acme"), (edge, "rival")):
        with pytest.raises(InvalidArgument):
            await thief.acquire(account, USD, lease_id=grant.lease_id, seq=9)


async def test_calls_that_are_too_long_are_refused(usage: UsageService) -> None:
    edge = await usage.open_edge()
    with pytest.raises(InvalidArgument):
        await edge.send(1, [pb.Record()] * 1001)
    with pytest.raises(InvalidArgument):
        await edge.send(0, [pb.Record()])
    with pytest.raises(InvalidArgument):
        await usage.open_edge("not a uuid")
