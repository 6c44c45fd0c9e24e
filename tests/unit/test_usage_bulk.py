"""Batches that are posted at once: whatever they are, the books are those of posting them record by record."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edge.metering import usage_event as edge_event
from protos.usage.v1 import usage_pb2 as pb
from tests.unit.test_usage_books import TERMS, TODAY, event
from usage_svc import bulk, rating
from usage_svc.convert import batch_from_pb
from usage_svc.events import (
    SCHEMA_KNOWN,
    Batch,
    EventRecord,
    Outcome,
    PriceTerms,
    Record,
    ReturnRecord,
    Source,
    UsageEvent,
)
from usage_svc.intake import Intake, Lookups, sift, take_in
from usage_svc.leases import Lease
from usage_svc.prices import judge
from usage_svc.sessions import SessionId

OURS, FOREIGN = SessionId("spool-1", 1), SessionId("spool-2", 1)
DEAR = PriceTerms("v2", "0.000000003", "0")
UNKNOWN = PriceTerms("v3", "0.000000005", "0")  # never judged: nobody knows its price
PRICES = dict(judge([TERMS, DEAR], {}).prices)


_PLAIN = UsageEvent(
    request_id="0199a0de-0000-7000-8000-000000000001",
    account_id="acme",
    lease_id="lease",
    key_id="key",
    model_id="model",
    deployment_id="deployment",
    resource=1,
    status_code=200,
    streamed=True,
    outcome=1,
    source=1,
    ending=1,
    hold_nanousd=10,
    plausible_tokens_max=1000,
    first_byte_ms=1,
    duration_ms=2,
    prompt_tokens=5,
    completion_tokens=5,
    cached_tokens=0,
    cache_write_tokens=0,
    reasoning_tokens=0,
    audio_tokens=0,
    image_tokens=0,
    images=0,
    price_version="v",
    admit_time_us=1,
    end_time_us=2,
    attempts=b"",
)
_PLAIN_DAY = 20362
# A row whose status is not 32 bits wide cannot be read, and is not judged.
_JUDGED_FIELDS = [name for name in UsageEvent._fields if name != "status_code"]
_ODD = {
    int: st.sampled_from(
        [-1, 0, 1, 2, 3, 5, 6, 1000, 1001, 10**5 + 1, 10**10 + 1, 366 * 86_400_000 + 1, 10**18 + 1, 2**62]
    ),
    bool: st.booleans(),
    bytes: st.just(b""),
    str: st.sampled_from(["", "acme", "revenue", "a\0b", "x" * 101, "x" * 201, "0199a0de-0000-4000-8000-000000000001"]),
}


def _sent(records: list[Record]) -> Batch:
    """What arrives of these records, sent by an edge."""
    messages = []
    for record in records:
        if isinstance(record, EventRecord):
            price = pb.PriceVector(**record.terms._asdict()).SerializeToString()
            row = (record.schema, price, *record.event[:-2], ())
            messages.append(pb.Record(event_row=msgspec.msgpack.encode(row)))
        else:
            assert isinstance(record, ReturnRecord)
            messages.append(pb.Record(lease_return=pb.LeaseReturn(**record._asdict())))
    batch = batch_from_pb(messages)
    assert batch.size == len(records)
    assert batch.records == records
    return batch


def _leases(granted: int) -> dict[str, Lease]:
    leases = {
        "a": Lease("a", "acme", "spool-1", 1, granted),
        "b": Lease("b", "bell", "spool-1", 1, granted),
        "closed": Lease("closed", "acme", "spool-1", 1, granted),
        "theirs": Lease("theirs", "acme", "spool-2", 1, granted),
    }
    leases["closed"].release()
    return leases


@st.composite
def _events(draw: st.DrawFn, *, usual: bool) -> EventRecord:
    lease_id, account_id = draw(st.sampled_from([("a", "acme"), ("b", "bell")]))
    if not usual:
        lease_id = draw(st.sampled_from(["a", "b", "closed", "theirs", "gone", ""]))
    made = event(draw(st.integers(0, 200)), account_id, lease_id, draw(st.integers(0, 40)))
    outcomes = [(Outcome.MEASURED, Source.UPSTREAM_FINAL)] * 3
    outcomes += [(Outcome.NONE, Source.NONE), (Outcome.WAIVED, Source.NONE), (Outcome.EDGE_LOST, Source.NONE)]
    outcome, source = draw(st.sampled_from(outcomes))
    terms = draw(st.sampled_from([TERMS, DEAR] if usual else [TERMS, DEAR, UNKNOWN, PriceTerms()]))
    changed = made.event._replace(
        outcome=int(outcome),
        source=int(source),
        ending=4 if outcome is Outcome.EDGE_LOST else 1,
        price_version=terms.price_version,
    )
    return EventRecord(changed, 1, terms)


_USUAL = st.lists(_events(usual=True), min_size=1, max_size=12)
_ANY = st.lists(
    st.one_of(_events(usual=True), _events(usual=False), st.builds(ReturnRecord, st.just("a"), st.integers(0, 50))),
    min_size=1,
    max_size=12,
)


def _books(found: Intake, known: Lookups) -> Any:
    """What a batch comes to, whoever took it in."""
    posted = found.posted
    columns = (posted.days, *posted.fields, posted.charges_nanousd, posted.overflows_nanousd, posted.seqs)
    rows = list(zip(*columns, strict=True))
    return rows, found.superseded, found.leases, known.leases, found.accounts, found.exceptions, found.overflows


def _at_once(records: list[Record], known: Lookups, session_id: SessionId = OURS) -> Intake | None:
    columns = _sent(records).columns
    sifted = bulk.sift(columns, TODAY, 35) if columns is not None else None
    if columns is None or sifted is None:
        return None
    plainly = sift(records, TODAY, 35)
    assert (sifted.reasons, sifted.days, sifted.lease_ids) == (plainly.reasons, plainly.days, plainly.lease_ids)
    assert {day: list(ids) for day, ids in sifted.request_ids_by_day.items()} == plainly.request_ids_by_day
    assert set(sifted.terms) == set(plainly.terms)
    return bulk.take_in(session_id, 7, columns, sifted, known)


@given(records=st.one_of(_USUAL, _ANY), granted=st.integers(0, 400))
def test_a_batch_at_once_is_the_batch_record_by_record(records: list[Record], granted: int) -> None:
    once, singly = (Lookups(_leases(granted), {}, PRICES, {}) for _ in range(2))
    at_once = _at_once(records, once)
    one_by_one = take_in(OURS, 7, records, sift(records, TODAY, 35), singly)
    if at_once is None:
        assert once.leases == _leases(granted)  # nothing was drawn
    else:
        assert _books(at_once, once) == _books(one_by_one, singly)


def _batch() -> list[Record]:
    return [event(number, "acme", "a", 10) for number in range(5)]


def _is_taken_at_once(records: list[Record], lookups: Lookups, session_id: SessionId = OURS) -> bool:
    return _at_once(records, deepcopy(lookups), session_id) is not None


def test_what_is_common_is_posted_at_once_and_nothing_else_is() -> None:
    usual = Lookups(_leases(50), {}, PRICES, {})
    dear = event(9, "bell", "b", 10)
    dear = dear._replace(event=dear.event._replace(price_version="v2"), terms=DEAR)
    estimated = event(8, "bell", "b", 10)
    estimated = estimated._replace(
        event=estimated.event._replace(outcome=2, source=3, hold_nanousd=5, prompt_tokens=7, completion_tokens=3)
    )
    assert _is_taken_at_once(_batch(), usual)
    assert _is_taken_at_once([*_batch(), dear, estimated], usual)
    assert not _is_taken_at_once([*_batch(), event(9, "acme", "a", 10)], usual)  # beyond its lease
    assert not _is_taken_at_once(
        [*_batch(), event(9, "bell", "a", 0), event(8, "bell", "a", 1)], usual
    )  # a foreign one
    assert not _is_taken_at_once([*_batch(), event(0, "acme", "a", 0)], usual)  # twice in it
    assert not _is_taken_at_once(_batch(), replace(usual, seen_outcomes={"x": 1}))
    assert not _is_taken_at_once(_batch(), replace(usual, prices={}))
    assert not _is_taken_at_once(_batch(), usual, FOREIGN)
    assert not _is_taken_at_once([*_batch(), ReturnRecord("a", 1)], usual)


def test_an_edge_writes_the_fields_that_usage_svc_reads_in_their_order() -> None:
    written = edge_event.UsageEvent.__struct_fields__
    assert written == ("schema", "price", *UsageEvent._fields[:-1])
    assert UsageEvent._fields[-1] == "price_version"  # out of the price
    assert edge_event.EVENT_SCHEMA == SCHEMA_KNOWN


def test_a_row_that_cannot_be_read_or_is_newer_leaves_its_batch_to_be_read_one_by_one() -> None:
    good = pb.Record(event_row=msgspec.msgpack.encode((1, b"", *_PLAIN[:-2], ())))
    for bad in (b"\xc1", msgspec.msgpack.encode((2, b"", *_PLAIN[:-2], (), "more")), b""):
        batch = batch_from_pb([good, pb.Record(event_row=bad), good])
        assert batch.columns is None
        assert [isinstance(record, EventRecord) for record in batch.records] == [True, False, True]
    assert batch_from_pb([]).columns is None


def test_a_batch_of_which_nothing_can_be_posted_has_empty_columns() -> None:
    records: list[Record] = [ReturnRecord("gone", 5)]
    found = take_in(OURS, 1, records, sift(records, TODAY, 35), Lookups({}, {}, {}, {}))
    assert not found.posted.days
    assert not found.posted.field("request_id")
    assert [each.reason for each in found.exceptions] == ["LEASE_UNKNOWN"]


@given(
    st.lists(st.dictionaries(st.sampled_from(_JUDGED_FIELDS), st.just(0), max_size=1), min_size=1, max_size=4),
    st.data(),
)
def test_a_batch_judged_at_once_is_refused_nothing_that_one_by_one_would_refuse(
    odd: list[dict[str, int]], data: st.DataObject
) -> None:
    records: list[Record] = []
    for number, changed in enumerate(odd):
        values: dict[str, Any] = {name: data.draw(_ODD[type(getattr(_PLAIN, name))]) for name in changed}
        values = {"request_id": f"0199a0de-{number:04x}-7000-8000-000000000001", **values}
        version = values.setdefault("price_version", "v")
        records.append(EventRecord(_PLAIN._replace(**values), 1, PriceTerms(version, "1", "1")))
    columns = _sent(records).columns
    sifted = bulk.sift(columns, _PLAIN_DAY, 35) if columns is not None else None
    reasons = [
        rating.reason_against(record, rating.day_of(record.event.request_id), _PLAIN_DAY, 35)
        for record in records
        if isinstance(record, EventRecord)
    ]
    # And where nothing was odd, it is not slow for nothing.
    assert (sifted is not None) is (reasons == [None] * len(records))
