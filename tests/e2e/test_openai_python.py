"""openai-python, the real client, against the four processes: what it gets, and what that costs."""

import asyncio
import json
from typing import Any

import pytest
from openai import AsyncOpenAI, omit, pydantic_function_tool
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from openai.types.responses import ResponseCompletedEvent
from pydantic import BaseModel

from tests.e2e.customer import (
    MODEL,
    ONE_TWO_THREE_NANOUSD,
    Customer,
    cost_nanousd,
    new_customer,
    reported_cost_nanousd,
    words,
)
from tests.harness.processes import RunningStack
from tests.harness.upstream_answer import Answer, answer_from_options
from tests.harness.upstream_process import UpstreamProcess

TEXT = "Hello from the scripted upstream."


class Town(BaseModel):
    """What the model is to find out."""

    name: str
    people: int


OSLO = Town(name="Oslo", people=724_000)


# ---- chat ----


def test_a_chat_is_answered_and_billed(customer: Customer) -> None:
    with customer.client() as client:
        completion = client.chat.completions.create(model=MODEL, messages=words())
    assert completion.choices[0].message.content == TEXT
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 5)
    customer.is_billed(ONE_TWO_THREE_NANOUSD)


async def test_an_async_chat_is_answered_and_billed(customer: Customer) -> None:
    async with customer.async_client() as client:
        completion = await client.chat.completions.create(model=MODEL, messages=words())
        assert completion.choices[0].message.content == TEXT
        stream = await client.chat.completions.create(model=MODEL, messages=words(), stream=True)
        chunks = [chunk async for chunk in stream]
    assert text_of(chunks) == TEXT
    customer.is_billed(2 * ONE_TWO_THREE_NANOUSD, requests=2)


@pytest.mark.parametrize(
    "mode", ["ok", "finish_on_content", "usage_last_chunk", "usage_null_everywhere", "usage_then_null", "llamacpp+crlf"]
)
def test_a_stream_that_nobody_asked_usage_of_has_it_on_the_last_chunk_with_choices(
    customer: Customer, upstream: UpstreamProcess, mode: str
) -> None:
    upstream.script(answer_from_options({"mode": mode}))
    with customer.client() as client:
        chunks = list(client.chat.completions.create(model=MODEL, messages=words(), stream=True))
    assert text_of(chunks) == TEXT  # which reads choices[0] of every one of them
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == "stop"
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 5, 8)
    customer.is_billed(ONE_TWO_THREE_NANOUSD)


def test_a_stream_that_usage_was_asked_of_ends_with_it_on_a_chunk_of_its_own(customer: Customer) -> None:
    with customer.client() as client:
        chunks = list(
            client.chat.completions.create(
                model=MODEL, messages=words(), stream=True, stream_options={"include_usage": True}
            )
        )
    assert text_of(chunks[:-1]) == TEXT
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 8
    customer.is_billed(ONE_TWO_THREE_NANOUSD)


def test_a_stream_that_refuses_usage_has_none_and_is_billed_all_the_same(
    customer: Customer, upstream: UpstreamProcess
) -> None:
    with customer.client() as client:
        chunks = list(
            client.chat.completions.create(
                model=MODEL, messages=words(), stream=True, stream_options={"include_usage": False}
            )
        )
    assert text_of(chunks) == TEXT
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    [received] = upstream.record().requests
    assert received.json["stream_options"] == {"include_usage": True}
    customer.is_billed(ONE_TWO_THREE_NANOUSD)


# Whoever asks for usage gets an upstream's trailing chunk unchanged, so the last of these is for those who do not.
@pytest.mark.parametrize(("asked", "mode"), [(False, "ok"), (True, "ok"), (False, "usage_then_null")])
def test_the_stream_helper_ends_with_the_whole_completion_and_its_usage(
    customer: Customer, upstream: UpstreamProcess, asked: bool, mode: str
) -> None:
    upstream.script(answer_from_options({"mode": mode}))
    options: Any = {"include_usage": True} if asked else omit
    with (
        customer.client() as client,
        client.chat.completions.stream(model=MODEL, messages=words(), stream_options=options) as stream,
    ):
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        completion = stream.get_final_completion()
    assert "".join(deltas) == completion.choices[0].message.content == TEXT
    assert completion.usage is not None
    assert completion.usage.total_tokens == 8
    customer.is_billed(ONE_TWO_THREE_NANOUSD)


def test_cached_and_reasoning_tokens_are_seen_and_priced(customer: Customer, upstream: UpstreamProcess) -> None:
    upstream.script(Answer(prompt_tokens=1_000, cached_tokens=900, completion_tokens=50, reasoning_tokens=40))
    with customer.client() as client:
        usage = client.chat.completions.create(model=MODEL, messages=words()).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.completion_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 900
    assert usage.completion_tokens_details.reasoning_tokens == 40
    customer.is_billed(100 * 1_000 + 900 * 500 + 50 * 2_000)


# ---- responses ----


def test_a_response_is_answered_and_billed(customer: Customer) -> None:
    with customer.client() as client:
        response = client.responses.create(model=MODEL, input="one two three")
    assert response.output_text == TEXT
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 5)
    customer.is_billed(ONE_TWO_THREE_NANOUSD)


async def test_an_async_response_is_streamed_and_billed(customer: Customer) -> None:
    async with customer.async_client() as client:
        stream = await client.responses.create(model=MODEL, input="one two three", stream=True)
        events = [event async for event in stream]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == TEXT
    assert isinstance(events[-1], ResponseCompletedEvent)
    assert events[-1].response.usage is not None
    assert events[-1].response.usage.total_tokens == 8
    customer.is_billed(ONE_TWO_THREE_NANOUSD)


def test_the_response_helper_ends_with_the_whole_response_and_its_usage(customer: Customer) -> None:
    with (
        customer.client() as client,
        client.responses.stream(model=MODEL, input="one two three") as stream,
    ):
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        response = stream.get_final_response()
    assert "".join(deltas) == response.output_text == TEXT
    assert response.usage is not None
    assert response.usage.total_tokens == 8
    customer.is_billed(ONE_TWO_THREE_NANOUSD)


# ---- tools and structured output ----


def test_a_tool_is_called_and_its_result_is_answered(customer: Customer, upstream: UpstreamProcess) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "Town", "arguments": OSLO.model_dump_json()}}
    upstream.script(Answer(body=_completion({"role": "assistant", "content": None, "tool_calls": [call]})))
    asked = words("How large is Oslo?")
    tools = [pydantic_function_tool(Town)]
    with customer.client() as client:
        first = client.chat.completions.parse(model=MODEL, messages=asked, tools=tools)
        [called] = first.choices[0].message.tool_calls or []
        assert called.function.parsed_arguments == OSLO
        history: list[ChatCompletionMessageParam] = [
            *asked,
            {"role": "assistant", "tool_calls": [{"id": called.id, "type": "function", "function": call["function"]}]},  # type: ignore[typeddict-item]  # a plain dict
            {"role": "tool", "tool_call_id": called.id, "content": "724000"},
        ]
        second = client.chat.completions.create(model=MODEL, messages=history, tools=tools)
    assert second.choices[0].message.content == TEXT
    before, after = upstream.record().requests
    assert before.json["tools"] == after.json["tools"] == json.loads(json.dumps(tools))
    assert after.json["messages"] == history
    customer.is_billed(cost_nanousd(TOOL_USAGE) + reported_cost_nanousd(upstream), requests=2)


def test_a_streamed_tool_call_is_assembled_with_its_usage(customer: Customer, upstream: UpstreamProcess) -> None:
    arguments = OSLO.model_dump_json()
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "Town", "arguments": ""}}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in arguments]
    upstream.script(Answer(body=_chunks(deltas), content_type="text/event-stream"))
    with (
        customer.client() as client,
        client.chat.completions.stream(
            model=MODEL, messages=words("How large is Oslo?"), tools=[pydantic_function_tool(Town)]
        ) as stream,
    ):
        completion = stream.get_final_completion()
    [called] = completion.choices[0].message.tool_calls or []
    assert called.function.parsed_arguments == OSLO
    assert completion.usage is not None
    assert completion.usage.total_tokens == 40
    customer.is_billed(cost_nanousd(TOOL_USAGE))


def test_structured_output_is_parsed(customer: Customer, upstream: UpstreamProcess) -> None:
    upstream.script(Answer(text=OSLO.model_dump_json()), Answer(text=OSLO.model_dump_json()))
    with customer.client() as client:
        completion = client.chat.completions.parse(model=MODEL, messages=words(), response_format=Town)
        response = client.responses.parse(model=MODEL, input="one two three", text_format=Town)
    assert completion.choices[0].message.parsed == OSLO
    assert response.output_parsed == OSLO
    chat, responses = upstream.record().requests
    assert chat.json["response_format"]["json_schema"]["name"] == "Town"
    assert responses.json["text"]["format"]["name"] == "Town"
    customer.is_billed(2 * ONE_TWO_THREE_NANOUSD, requests=2)


# ---- models and headers ----


def test_models_are_listed_and_found_by_ids_with_slashes(customer: Customer) -> None:
    with customer.client() as client:
        listed = {model.id: model for model in client.models.list()}
        model = client.models.retrieve(MODEL)
    assert MODEL in listed
    assert (model.id, model.object) == (MODEL, "model")
    assert model == listed[MODEL]
    assert model.model_dump()["pricing"] == {
        "prompt": "0.000001",
        "completion": "0.000002",
        "input_cache_read": "0.0000005",
        "image": "0",
        "request": "0",
    }


async def test_a_key_lists_the_models_that_it_may_use(stack: RunningStack) -> None:
    customer = new_customer(stack, models=[MODEL])
    async with customer.async_client() as client:
        assert [model.id async for model in client.models.list()] == [MODEL]


def test_each_answer_has_a_request_id_of_its_own(customer: Customer) -> None:
    with customer.client() as client:
        first = client.chat.completions.with_raw_response.create(model=MODEL, messages=words())
        second = client.responses.with_raw_response.create(model=MODEL, input="one two three")
        models = client.models.with_raw_response.list()
    assert first.headers["content-type"] == "application/json"
    assert "content-encoding" not in first.headers
    assert first.parse()._request_id == first.request_id
    ids = {answer.headers["x-request-id"] for answer in (first, second, models)}
    assert len(ids) == 3
    # The same id finds the request in the account's usage.
    assert {first.request_id, second.request_id} == {each.event.request_id for each in customer.settled(2)}


# ---- many at once ----


async def test_fifty_requests_at_once_are_each_billed_once(customer: Customer, upstream: UpstreamProcess) -> None:
    async def chat(client: AsyncOpenAI, number: int) -> dict[str, Any]:
        answered = await client.chat.completions.create(model=MODEL, messages=words("word " * (number + 1)))
        assert answered.usage is not None
        return answered.usage.model_dump()

    async def streamed(client: AsyncOpenAI, number: int) -> dict[str, Any]:
        stream = await client.chat.completions.create(
            model=MODEL, messages=words("word " * (number + 1)), max_tokens=number % 5 + 1, stream=True
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        return chunks[-1].usage.model_dump()

    async def response(client: AsyncOpenAI, number: int) -> dict[str, Any]:
        answered = await client.responses.create(model=MODEL, input="word " * (number + 1))
        assert answered.usage is not None
        return answered.usage.model_dump()

    async with customer.async_client() as client:
        ways = (chat, streamed, response)
        seen = await asyncio.gather(*(ways[number % 3](client, number) for number in range(50)))
    cost = sum(map(cost_nanousd, seen))
    assert len(upstream.record().requests) == 50
    assert cost == reported_cost_nanousd(upstream)
    await asyncio.to_thread(customer.is_billed, cost, requests=50)


TOOL_USAGE = {"prompt_tokens": 30, "completion_tokens": 10, "total_tokens": 40}


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    """As most people write it."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def _completion(message: dict[str, Any]) -> bytes:
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls"}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL}
    return json.dumps({**head, "choices": [choice], "usage": TOOL_USAGE}).encode()


def _chunks(deltas: list[dict[str, Any]]) -> bytes:
    """A stream of these deltas, its finish, and usage as one gets it who asks."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    said: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    said.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    said.append({**head, "choices": [], "usage": TOOL_USAGE})
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in said) + b"data: [DONE]\n\n"
