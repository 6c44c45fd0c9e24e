"""usage_svc: customers' idempotency keys, on both engines."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chassis.faults import InvalidArgument
from protos.usage.v1 import usage_pb2 as pb
from tests.harness.usage_service import USD, Edge, UsageService, event, new_id, uncharged, usage_service
from usage_svc.idempotency_keys import SWEEP_ROWS, IdempotencyKeys

CLAIMED, IN_FLIGHT = pb.CLAIM_OUTCOME_CLAIMED, pb.CLAIM_OUTCOME_IN_FLIGHT
FINISHED, MISMATCH = pb.CLAIM_OUTCOME_FINISHED, pb.CLAIM_OUTCOME_MISMATCH
ANSWER = pb.StoredAnswer(status_code=200, content_type="application/json", body=b'{"a": "\x00\xff"}')


@pytest.fixture
async def usage(database_url: str) -> AsyncIterator[UsageService]:
    async with usage_service(database_url) as service:
        yield service
        await service.audit()


async def claim(
    usage: UsageService, edge: Edge, request_id: str = "", *, key: str = "k-1", asked: bytes = b"this", **values: Any
) -> pb.ClaimIdempotencyKeyResponse:
    request = pb.ClaimIdempotencyKeyRequest(
        **{
            "session": edge.session,
            "account_id": "acme",
            "idempotency_key": key,
            "request_sha256": hashlib.sha256(asked).digest(),
            "request_id": request_id or new_id(),
            **values,
        }
    )
    answer: pb.ClaimIdempotencyKeyResponse = await usage.call(usage.metering.ClaimIdempotencyKey, request)
    return answer


async def finish(usage: UsageService, request_id: str, *, key: str = "k-1", **values: Any) -> None:
    request = pb.FinishIdempotencyKeyRequest(account_id="acme", idempotency_key=key, request_id=request_id, **values)
    await usage.call(usage.metering.FinishIdempotencyKey, request)


async def test_a_key_is_taken_once_and_tells_its_answer_afterwards(usage: UsageService) -> None:
    edge, other = await usage.open_edge(), await usage.open_edge()
    first = await claim(usage, edge)
    assert first.outcome == CLAIMED
    assert await claim(usage, edge, first.request_id) == first  # its answer was lost
    second = await claim(usage, other)
    assert (second.outcome, second.request_id) == (IN_FLIGHT, first.request_id)
    await finish(usage, first.request_id, answer=ANSWER)
    for asker in (edge, other):
        later = await claim(usage, asker)
        assert (later.outcome, later.request_id, later.answer) == (FINISHED, first.request_id, ANSWER)


async def test_an_answer_that_may_not_be_kept_is_not(usage: UsageService) -> None:
    edge = await usage.open_edge()
    first = await claim(usage, edge)
    await finish(usage, first.request_id)
    later = await claim(usage, edge)
    assert (later.outcome, later.request_id, later.HasField("answer")) == (FINISHED, first.request_id, False)


async def test_another_question_under_the_same_key_is_a_mismatch(usage: UsageService) -> None:
    edge = await usage.open_edge()
    first = await claim(usage, edge)
    assert (await claim(usage, edge, asked=b"that")).outcome == MISMATCH
    await finish(usage, first.request_id, answer=ANSWER)
    assert (await claim(usage, edge, asked=b"that")).outcome == MISMATCH


async def test_accounts_and_keys_do_not_meet(usage: UsageService) -> None:
    edge = await usage.open_edge()
    await claim(usage, edge)
    assert (await claim(usage, edge, account_id="other")).outcome == CLAIMED
    assert (await claim(usage, edge, key="K-1")).outcome == CLAIMED


async def test_a_released_key_is_free_and_a_finished_one_cannot_be_released(usage: UsageService) -> None:
    edge = await usage.open_edge()
    first = await claim(usage, edge)
    await finish(usage, first.request_id, released=True)
    second = await claim(usage, edge)
    assert second.outcome == CLAIMED
    await finish(usage, first.request_id, released=True)  # late, and another one's by now
    assert (await claim(usage, edge)).outcome == IN_FLIGHT
    await finish(usage, second.request_id, answer=ANSWER)
    await finish(usage, second.request_id, released=True)
    assert (await claim(usage, edge)).outcome == FINISHED


async def test_of_many_at_once_one_gets_it(usage: UsageService) -> None:
    edges = [await usage.open_edge() for _ in range(3)]
    answers = await asyncio.gather(*(claim(usage, edges[number % 3]) for number in range(30)))
    outcomes = Counter(answer.outcome for answer in answers)
    assert outcomes == {CLAIMED: 1, IN_FLIGHT: 29}
    assert len({answer.request_id for answer in answers if answer.outcome == CLAIMED}) == 1


@pytest.mark.parametrize(
    ("outcome", "ending", "then"),
    [
        (pb.OUTCOME_MEASURED, pb.ENDING_COMPLETED, FINISHED),
        (pb.OUTCOME_ESTIMATED, pb.ENDING_CLIENT_GONE, FINISHED),
        (pb.OUTCOME_WAIVED, pb.ENDING_COMPLETED, FINISHED),
        (pb.OUTCOME_WAIVED, pb.ENDING_UPSTREAM_FAILED, CLAIMED),
        (pb.OUTCOME_NONE, pb.ENDING_UPSTREAM_FAILED, CLAIMED),
        (pb.OUTCOME_EDGE_LOST, pb.ENDING_EDGE_LOST, CLAIMED),
    ],
)
async def test_a_claim_that_its_edge_never_finished_ends_with_its_request(
    usage: UsageService, outcome: Any, ending: Any, then: Any
) -> None:
    await usage.credit("acme", USD)
    edge = await usage.open_edge()
    first = await claim(usage, edge)
    charged = outcome in (pb.OUTCOME_MEASURED, pb.OUTCOME_ESTIMATED)
    if charged:
        source = pb.USAGE_SOURCE_UPSTREAM_FINAL if outcome == pb.OUTCOME_MEASURED else pb.USAGE_SOURCE_ESTIMATED
        edge.spool(event("acme", request_id=first.request_id, outcome=outcome, ending=ending, source=source))
    else:
        edge.spool(uncharged("acme", outcome, request_id=first.request_id, ending=ending))
    assert (await claim(usage, edge)).outcome == IN_FLIGHT
    assert list((await edge.ship()).exceptions) == []
    again = await claim(usage, edge)
    assert (again.outcome, again.HasField("answer")) == (then, False)


async def test_a_claim_whose_request_was_never_made_ends_with_its_session_and_not_before(usage: UsageService) -> None:
    dead = await usage.open_edge()
    first = await claim(usage, dead)
    successor = await usage.open_edge(dead.session.spool_uuid)  # fences it: the dead one may still be spending
    assert (await claim(usage, successor)).outcome == IN_FLIGHT
    await dead.seal()
    second = await claim(usage, successor)
    assert second.outcome == CLAIMED
    await finish(usage, first.request_id, answer=ANSWER)  # too late: not its own any more
    assert (await claim(usage, successor)).outcome == IN_FLIGHT


async def test_a_key_is_forgotten_after_its_time(usage: UsageService) -> None:
    keys = IdempotencyKeys(usage.database, 86_400, asyncio.sleep)
    edge = await usage.open_edge()
    first = await claim(usage, edge)
    await finish(usage, first.request_id, answer=ANSWER)
    await claim(usage, edge, key="k-2")
    assert await keys.sweep() == 0
    await _expire(usage, "k-1")
    assert (await claim(usage, edge, asked=b"that")).outcome == CLAIMED
    await _expire(usage, "k-2")
    assert await keys.sweep() == 1 <= SWEEP_ROWS
    assert await usage.rows("SELECT idempotency_key FROM idempotency_key") == [("k-1",)]


async def _expire(usage: UsageService, key: str) -> None:
    statement = f"UPDATE idempotency_key SET expire_time_us = 1 WHERE idempotency_key = '{key}'"

    async def write(transaction: Any) -> None:
        await (await transaction.connection()).exec_driver_sql(statement)

    await usage.database.write(write)


@pytest.mark.parametrize(
    "values",
    [
        {"idempotency_key": ""},
        {"idempotency_key": "x" * 256},
        {"idempotency_key": "é"},
        {"idempotency_key": "a\nb"},
        {"request_sha256": b"short"},
        {"request_id": "one"},
        {"account_id": ""},
        {"session": pb.Session(spool_uuid="x", incarnation=1)},
    ],
    ids=str,
)
async def test_a_claim_that_makes_no_sense_is_refused(usage: UsageService, values: dict[str, Any]) -> None:
    edge = await usage.open_edge()
    with pytest.raises(InvalidArgument):
        await claim(usage, edge, **values)


async def test_an_answer_that_makes_no_sense_is_refused(usage: UsageService) -> None:
    edge = await usage.open_edge()
    first = await claim(usage, edge)
    for answer in (pb.StoredAnswer(status_code=1), pb.StoredAnswer(status_code=200, body=bytes((1 << 20) + 1))):
        with pytest.raises(InvalidArgument):
            await finish(usage, first.request_id, answer=answer)
