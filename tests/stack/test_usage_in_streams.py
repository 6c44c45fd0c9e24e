"""Usage is always there, and the bill equals what the upstream reported (docs/http-api.md, "Usage is always there")."""

import asyncio
import json
from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio

from protos.usage.v1 import usage_pb2 as pb
from tests.harness.eventually import eventually
from tests.harness.stack import MODEL, Customer, Json, Stack
from tests.harness.upstream_answer import Answer, Terminal, answer_from_options
from tests.stack.client import CHAT, RESPONSES, Client, Response, chat, responses

pytestmark = pytest.mark.asyncio(loop_scope="session")

USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
TEXT = "Hello from the scripted upstream."
NOT_ASKED: list[Json] = [{}, {"stream_options": None}, {"stream_options": {}}]
NOT_ASKED += [{"stream_options": {"include_usage": None}}]
PLACES = [
    "ok",
    "usage_last_chunk",
    "usage_last_content",
    "usage_in_choice",
    "usage_null_everywhere",
    "usage_cumulative",
]
PLACES += ["usage_then_null", "finish_on_content", "azure", "llamacpp", "no_done", "multiline", "crlf", "cr", "bom"]
PLACES += ["byte_by_byte", "gzip", "close_body", "comments"]


@pytest_asyncio.fixture(loop_scope="session")
async def sdk(stack: Stack, customer: Customer) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own client."""
    async with openai.AsyncOpenAI(base_url=f"{stack.edge_url}/v1", api_key=customer.secret, max_retries=0) as client:
        yield client


async def assert_billed_as_reported(stack: Stack, customer: Customer, count: int = 1) -> list[pb.RequestSummary]:
    """The ledger has what the upstream's own record says, to the token and the nano-dollar."""
    found = await stack.settled(customer, count)
    for request, reported in zip(found, stack.upstream.reported, strict=True):
        usage = reported.usage
        prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
        completion = usage.get("completion_tokens", usage.get("output_tokens"))
        tokens = request.event.tokens
        assert (tokens.prompt_tokens, tokens.completion_tokens) == (prompt, completion)
        assert (request.event.outcome, request.event.source) == (pb.OUTCOME_MEASURED, pb.USAGE_SOURCE_UPSTREAM_FINAL)
        uncached = prompt - tokens.cached_tokens
        assert request.charged_nanousd == uncached * 1000 + tokens.cached_tokens * 500 + completion * 2000
    balance = await stack.balance(customer.account_id)
    assert balance.charged_nanousd == sum(request.charged_nanousd for request in found)
    return found


def events_of(answer: Response) -> list[Json]:
    """The JSON events of a stream in any legal form."""
    text = answer.body.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    data = [
        "\n".join(line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:"))
        for block in text.split("\n\n")
    ]
    return [json.loads(each) for each in data if each and each != "[DONE]"]


def text_of(events: list[Json]) -> str:
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


@pytest.mark.parametrize("place", PLACES)
async def test_who_did_not_ask_gets_usage_on_the_last_event_with_choices(
    stack: Stack, client: Client, customer: Customer, place: str
) -> None:
    stack.upstream.script(answer_from_options({"mode": place}))
    answer = await client.chat(chat(stream=True))
    events = events_of(answer)
    if place == "azure":
        assert events.pop(0)["choices"] == []
    assert all(event["choices"] for event in events)
    last = events[-1]
    assert last["choices"][0]["finish_reason"] == "stop"
    found = last["choices"][0] if place == "usage_in_choice" else last
    assert found["usage"] == USAGE
    assert json.dumps(last).count('"usage"') == 1
    if place == "llamacpp":
        assert last["timings"]["predicted_n"] == 5
    assert text_of(events) == TEXT.removesuffix(".") + "."
    # Also where the upstream left it out: every choice has finished, so the customer has all there is.
    assert answer.body.count(b"[DONE]") == 1
    await assert_billed_as_reported(stack, customer)


@pytest.mark.parametrize("options", NOT_ASKED, ids=str)
async def test_saying_nothing_in_so_many_words_counts_as_not_asked(client: Client, options: Json) -> None:
    events = (await client.chat(chat(stream=True, **options))).events
    assert all(event["choices"] for event in events)
    assert events[-1]["usage"] == USAGE


async def test_who_asked_gets_the_extra_chunk(stack: Stack, client: Client, customer: Customer) -> None:
    events = (await client.chat(chat(stream=True, stream_options={"include_usage": True}))).events
    assert (events[-1]["choices"], events[-1]["usage"]) == ([], USAGE)
    assert not any(event.get("usage") for event in events[:-1])
    await assert_billed_as_reported(stack, customer)


@pytest.mark.parametrize("place", ["ok", "usage_last_chunk", "usage_null_everywhere"])
async def test_who_said_no_gets_none_and_is_billed_all_the_same(
    stack: Stack, client: Client, customer: Customer, place: str
) -> None:
    stack.upstream.script(answer_from_options({"mode": place}))
    answer = await client.chat(chat(stream=True, stream_options={"include_usage": False}))
    assert all(event["choices"] for event in answer.events)
    assert not any(event.get("usage") for event in answer.events)
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert stack.upstream.requests[-1].json["stream_options"] == {"include_usage": True}
    await assert_billed_as_reported(stack, customer)


async def test_content_that_looks_like_usage_fools_nobody(stack: Stack, client: Client, customer: Customer) -> None:
    tricky = answer_from_options({"mode": "tricky_content"})
    stack.upstream.script(tricky, tricky)
    streamed = (await client.chat(chat(stream=True))).events
    whole = (await client.chat()).json
    assert text_of(streamed) == whole["choices"][0]["message"]["content"] == tricky.text
    assert streamed[-1]["usage"] == whole["usage"] == {**USAGE, "completion_tokens": 2, "total_tokens": 5}
    await assert_billed_as_reported(stack, customer, 2)


@pytest.mark.parametrize("place", ["ok", "usage_last_chunk", "usage_cumulative", "azure", "llamacpp"])
async def test_the_loop_that_most_people_write_never_crashes(stack: Stack, sdk: openai.AsyncOpenAI, place: str) -> None:
    stack.upstream.script(answer_from_options({"mode": place}))
    stream = await sdk.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "one two three"}], stream=True
    )
    text, usage = "", None
    async for chunk in stream:
        if place == "azure" and not chunk.choices:
            continue  # Azure's own opening event, which its users know
        text += chunk.choices[0].delta.content or ""
        usage = chunk.usage or usage
    assert text == TEXT
    assert usage is not None
    assert usage.to_dict() == USAGE


async def test_the_sdks_responses_stream_ends_with_its_usage(
    stack: Stack, sdk: openai.AsyncOpenAI, customer: Customer
) -> None:
    async with sdk.responses.stream(model=MODEL, input="one two three") as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_response()
    assert final.usage is not None
    assert (final.usage.input_tokens, final.usage.output_tokens, final.output_text) == (3, 5, TEXT)
    await assert_billed_as_reported(stack, customer)


@pytest.mark.parametrize("terminal", [*Terminal])
async def test_every_end_of_a_responses_stream_is_billed_by_its_usage(
    stack: Stack, client: Client, customer: Customer, terminal: Terminal
) -> None:
    stack.upstream.script(Answer(terminal=terminal))
    answer = await client.chat(responses(stream=True), path=RESPONSES)
    assert answer.events[-1]["type"] == f"response.{terminal}"
    found = await stack.settled(customer, 1)
    assert found[0].charged_nanousd == 13_000


async def test_details_are_read_and_priced(stack: Stack, client: Client, customer: Customer) -> None:
    details = Answer(prompt_tokens=1000, completion_tokens=100, cached_tokens=600, reasoning_tokens=40)
    stack.upstream.script(*[details] * 4)
    for path, body in ((CHAT, chat()), (CHAT, chat(stream=True)), (RESPONSES, responses(stream=True))):
        assert (await client.chat(body, path=path)).status == 200
    assert (await client.chat(responses(), path=RESPONSES)).status == 200
    for request in await assert_billed_as_reported(stack, customer, 4):
        assert (request.event.tokens.cached_tokens, request.event.tokens.reasoning_tokens) == (600, 40)
        assert request.charged_nanousd == 400 * 1000 + 600 * 500 + 100 * 2000


async def test_an_explicit_zero_is_zero(stack: Stack, client: Client, customer: Customer) -> None:
    stack.upstream.script(*[Answer(prompt_tokens=0, completion_tokens=0)] * 2)
    for stream in (False, True):
        await client.chat(chat(stream=stream))
    for request in await stack.settled(customer, 2):
        assert (request.event.outcome, request.charged_nanousd) == (pb.OUTCOME_MEASURED, 0)


@pytest.mark.parametrize("mode", ["not_an_object", "not_json"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_no_answer_of_the_api_is_passed_on_and_not_charged(
    stack: Stack, client: Client, customer: Customer, mode: str, stream: bool
) -> None:
    stack.upstream.script(answer_from_options({"mode": mode}))
    assert (await client.chat(chat(stream=stream))).status == 200
    [request] = await stack.settled(customer, 1)
    assert (request.event.outcome, request.charged_nanousd) == (pb.OUTCOME_WAIVED, 0)


@pytest.mark.parametrize("mode", ["negative_usage", "absurd_usage"])
@pytest.mark.parametrize("stream", [False, True])
async def test_counts_that_cannot_be_are_never_charged(
    stack: Stack, client: Client, customer: Customer, mode: str, stream: bool
) -> None:
    stack.upstream.script(answer_from_options({"mode": mode}))
    assert (await client.chat(chat(stream=stream))).status == 200
    assert (await client.chat(chat(max_tokens=1))).status == 200

    async def the_honest_one_is_charged() -> bool:
        return (await stack.balance(customer.account_id)).charged_nanousd == 5_000

    await eventually(the_honest_one_is_charged)
    await stack.audit()


async def test_the_price_is_the_one_at_admission(stack: Stack, client: Client, customer: Customer) -> None:
    await stack.offer("test/dear")
    stack.upstream.script(Answer(gap_ms=60))
    slow = asyncio.create_task(client.chat({**chat(stream=True), "model": "test/dear"}))
    await eventually(lambda: stack.upstream.requests)
    await stack.offer("test/dear", prices=[{"per_million": {"prompt": 10, "completion": 20}}])
    await client.chat({**chat(), "model": "test/dear"})
    await slow
    charges = sorted(request.charged_nanousd for request in await stack.settled(customer, 2))
    assert charges == [13_000, 130_000]
    await stack.withdraw("test/dear")


async def test_a_second_end_is_not_trusted(stack: Stack, client: Client, customer: Customer) -> None:
    stack.upstream.script(answer_from_options({"mode": "second_terminal"}))
    await client.chat(responses(stream=True), path=RESPONSES)
    [request] = await stack.settled(customer, 1)
    assert request.charged_nanousd in (0, 13_000)
