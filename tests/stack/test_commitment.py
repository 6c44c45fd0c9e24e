"""When a stream's 200 goes out though its upstream is silent, when it never does, and what is kept back till then."""

import time

import pytest

from edge.upstream import stream_options
from tests.harness.stack import Customer, Json, Stack
from tests.harness.upstream_answer import Answer, Ending, answer_from_options
from tests.stack.client import Client, chat

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETTINGS = {"edge": {"comment_interval_s": 0.15}}


async def test_a_slow_start_is_committed_and_still_fails_over(stack: Stack, client: Client) -> None:
    committing: Json = {"commit_after_s": "0.2", "first_byte_timeout_s": "0.6"}
    model = await stack.offer_new([committing, committing])
    stack.upstream.script(Answer(ending=Ending.STALL))
    start_s = time.monotonic()
    async with client.connected() as connection:
        await connection.send(client.post(chat(stream=True, model=model)))
        assert (await connection.head()).status == 200
        assert time.monotonic() - start_s < 0.5
        body = b"".join([piece async for piece in connection.pieces()])
    assert body.startswith(b": keep-alive\n\n")
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("then", [Answer(status=500), Answer(status=401), Answer(ending=Ending.RESET)])
async def test_total_failure_after_the_commit_is_one_error_event(
    stack: Stack, client: Client, customer: Customer, then: Answer
) -> None:
    model = await stack.offer_new([{"commit_after_s": "0.1"}])
    stack.upstream.close_connections()
    stack.upstream.script(Answer(headers_delay_ms=300, status=then.status, ending=then.ending))
    answer = await client.chat(chat(stream=True, model=model))
    assert answer.status == 200
    assert answer.body.replace(b": keep-alive\n\n", b"").startswith(b'data: {"error":')
    assert answer.events[0]["error"]["code"] == "upstream_error"
    assert len(answer.events) == 1
    assert (await stack.settled(customer, 1))[0].charged_nanousd == 0


async def test_a_whole_answer_is_never_committed_early(stack: Stack, client: Client) -> None:
    model = await stack.offer_new([{"commit_after_s": "0.1"}])
    stack.upstream.script(Answer(headers_delay_ms=300, status=500))
    assert (await client.chat(chat(model=model))).status == 500


async def test_a_stream_that_is_never_committed_early_keeps_its_status_honest(stack: Stack, client: Client) -> None:
    model = await stack.offer_new([{"commit_after_s": "0"}])
    stack.upstream.script(Answer(headers_delay_ms=1500, status=503, retry_after="3"))
    answer = await client.chat(chat(stream=True, model=model))
    assert (answer.status, answer.header("retry-after")) == (503, "3")
    stack.upstream.script(Answer(headers_delay_ms=1500))
    answer = await client.chat(chat(stream=True, model=model))
    assert answer.status == 200
    assert answer.body.startswith(b"data: ")


async def test_what_was_kept_back_is_released_when_the_upstream_falls_silent_after_its_finish(
    stack: Stack, client: Client, customer: Customer
) -> None:
    model = await stack.offer_new([{"idle_timeout_s": "0.3"}])
    whole = await client.chat(chat(stream=True, model=model))
    finish_at = len(whole.events)  # the finish is the last event with choices; the usage chunk and [DONE] never come
    stack.upstream.script(Answer(ending=Ending.STALL, ending_after=finish_at))
    answer = await client.chat(chat(stream=True, model=model))
    assert [event["choices"] for event in answer.events] == [event["choices"] for event in whole.events]
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert "error" not in answer.events[-1]
    assert len(await stack.settled(customer, 2)) == 2


async def test_what_a_server_refused_is_tried_again_after_a_while(
    stack: Stack, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = await stack.offer_new()
    old = answer_from_options({"mode": "refuse_stream_options+usage_last_content"})
    stack.upstream.script(old, old)
    monkeypatch.setattr(stream_options, "MEMORY_S", 0.0)
    assert (await client.chat(chat(stream=True, model=model))).status == 200
    assert (await client.chat(chat(stream=True, model=model))).status == 200
    assert ["stream_options" in request.json for request in stack.upstream.requests] == [True, False, True]
