"""openai-python when things go wrong: which exception it raises, what it repeats, and what that costs."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import openai
import pytest
from openai import DefaultHttpxClient, OpenAI

from protos.usage.v1 import usage_pb2 as pb
from tests.e2e.customer import (
    IMPATIENT,
    MODEL,
    ONE_TWO_THREE_NANOUSD,
    UNREACHABLE,
    Customer,
    new_customer,
    reported_cost_nanousd,
    words,
)
from tests.harness.eventually import eventually
from tests.harness.processes import RunningStack
from tests.harness.upstream_answer import Answer, answer_from_options
from tests.harness.upstream_process import UpstreamProcess


@contextmanager
def counting(customer: Customer, max_retries: int = 2) -> Iterator[tuple[OpenAI, list[object]]]:
    """A client that repeats as it does by default, and the requests that it has sent."""
    sent: list[object] = []
    with (
        DefaultHttpxClient(event_hooks={"request": [sent.append]}) as http_client,
        customer.client(http_client=http_client, max_retries=max_retries) as client,
    ):
        yield client, sent


def ask(client: OpenAI, model: str = MODEL) -> str | None:
    return client.chat.completions.create(model=model, messages=words()).choices[0].message.content


FINISHED = {"stop", "length", "response.completed", "response.incomplete"}


def chat_marks(client: OpenAI) -> Iterator[str]:
    """What each chunk of a stream says about its end."""
    for chunk in client.chat.completions.create(model=MODEL, messages=words(), stream=True):
        yield str(chunk.choices[0].finish_reason)


def response_marks(client: OpenAI) -> Iterator[str]:
    """The type of each event of a stream."""
    for event in client.responses.create(model=MODEL, input="one two three", stream=True):
        yield event.type


# ---- what the edge refuses by itself ----


def test_a_wrong_key_is_an_authentication_error(customer: Customer, upstream: UpstreamProcess) -> None:
    with customer.client(api_key="sk-nobody-has-this-one") as client:
        with pytest.raises(openai.AuthenticationError) as chat:
            ask(client)
        with pytest.raises(openai.AuthenticationError) as models:
            client.models.list()
    for caught in (chat.value, models.value):
        assert (caught.status_code, caught.code, caught.type) == (401, "INVALID_API_KEY", "authentication_error")
        assert caught.request_id
    assert upstream.record().requests == []


def test_a_key_without_the_scope_is_a_permission_denied_error(stack: RunningStack, upstream: UpstreamProcess) -> None:
    customer = new_customer(stack, scopes=["management"])
    with customer.client() as client, pytest.raises(openai.PermissionDeniedError) as caught:
        ask(client)
    assert (caught.value.code, caught.value.type) == ("PERMISSION_DENIED", "permission_error")
    assert upstream.record().requests == []


def test_an_unknown_model_is_a_bad_request_error_that_lists_the_valid_ones(customer: Customer) -> None:
    with customer.client() as client, pytest.raises(openai.BadRequestError) as caught:
        ask(client, "no/such-model")
    error = caught.value
    assert (error.code, error.type, error.param) == ("invalid_request_error", "invalid_request_error", "model")
    assert isinstance(error.body, dict)
    assert MODEL in error.body["valid_models"]
    assert MODEL in error.message


def test_a_model_outside_the_key_s_list_is_a_bad_request_error(stack: RunningStack) -> None:
    customer = new_customer(stack, models=[UNREACHABLE])
    with customer.client() as client, pytest.raises(openai.BadRequestError) as caught:
        ask(client)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["valid_models"] == [UNREACHABLE]


def test_an_unsupported_field_is_a_bad_request_error_that_names_it(
    customer: Customer, upstream: UpstreamProcess
) -> None:
    with customer.client() as client:
        with pytest.raises(openai.BadRequestError) as chat:
            client.chat.completions.create(model=MODEL, messages=words(), extra_body={"best_of": 2})
        with pytest.raises(openai.BadRequestError) as response:
            client.responses.create(model=MODEL, input="one two three", previous_response_id="resp_1")
    assert (chat.value.code, chat.value.param) == ("unsupported_parameter", "best_of")
    assert (response.value.code, response.value.param) == ("unsupported_parameter", "previous_response_id")
    assert upstream.record().requests == []


def test_an_unknown_model_or_path_is_a_not_found_error(customer: Customer) -> None:
    with customer.client() as client:
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("no/such-model")
        with pytest.raises(openai.NotFoundError) as caught:
            client.embeddings.create(model=MODEL, input="one two three")
    assert "/v1/chat/completions" in caught.value.message


def test_funds_used_up_are_an_api_status_error_that_is_not_repeated(
    stack: RunningStack, upstream: UpstreamProcess
) -> None:
    customer = new_customer(stack, credit_usd="0")
    with counting(customer) as (client, sent), pytest.raises(openai.APIStatusError) as caught:
        ask(client)
    assert (caught.value.status_code, caught.value.code) == (402, "INSUFFICIENT_BALANCE")
    assert caught.value.type == "insufficient_quota"
    assert len(sent) == 1
    assert upstream.record().requests == []


async def test_funds_held_by_another_request_are_a_rate_limit_error_until_it_ends(
    stack: RunningStack, upstream: UpstreamProcess
) -> None:
    # One hold of 0.008 and a bit; what is left is for one more request, the account's last, that may run under-held.
    customer = new_customer(stack, credit_usd="0.012")
    customer.set_grace(0)
    upstream.script(Answer(headers_delay_ms=700), Answer(headers_delay_ms=700))
    async with customer.async_client() as client:
        open_ones = [
            asyncio.create_task(client.chat.completions.create(model=MODEL, messages=words())) for _ in range(2)
        ]
        await eventually(lambda: len(upstream.record().requests) == 2)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model=MODEL, messages=words())
        assert (caught.value.code, caught.value.type) == ("funds_reserved", "rate_limit_error")
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
        # The SDK waits as it is told, and is served.
        patient = client.with_options(max_retries=3)
        third = await patient.chat.completions.create(model=MODEL, messages=words())
        assert [(await each).usage for each in open_ones] == [third.usage] * 2
    await asyncio.to_thread(customer.is_billed, 3 * ONE_TWO_THREE_NANOUSD, requests=3)


# ---- what model servers answer ----


def test_an_upstream_s_429_is_a_rate_limit_error_and_repeated_when_it_says(
    customer: Customer, upstream: UpstreamProcess
) -> None:
    limited = answer_from_options({"mode": "rate_limited"})
    upstream.script(limited, limited)
    with counting(customer, max_retries=0) as (client, _), pytest.raises(openai.RateLimitError) as caught:
        ask(client)
    assert caught.value.code == "scripted_429"  # its own words
    assert caught.value.response.headers["retry-after"] == "1"
    with counting(customer) as (client, sent):
        assert ask(client)
    assert len(sent) == 2
    customer.is_billed(ONE_TWO_THREE_NANOUSD, requests=3)


def test_an_upstream_s_500_is_an_internal_server_error_and_costs_nothing(
    customer: Customer, upstream: UpstreamProcess
) -> None:
    upstream.script(answer_from_options({"mode": "status"}))
    with counting(customer, max_retries=0) as (client, _), pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert (caught.value.status_code, caught.value.code) == (500, "scripted_500")
    customer.is_billed(0)


@pytest.mark.parametrize("mode", ["unauthorized", "payment_required", "forbidden", "garbage"])
def test_what_repeating_cannot_mend_is_a_502_that_the_sdk_does_not_repeat(
    customer: Customer, upstream: UpstreamProcess, mode: str
) -> None:
    upstream.script(answer_from_options({"mode": mode}))
    with counting(customer) as (client, sent), pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert (caught.value.status_code, caught.value.code, caught.value.type) == (502, "upstream_error", "server_error")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(sent) == len(upstream.record().requests) == 1
    customer.is_billed(0)


def test_a_slow_upstream_is_a_504_that_the_sdk_does_not_repeat(customer: Customer, upstream: UpstreamProcess) -> None:
    upstream.script(answer_from_options({"mode": "stall_before_headers"}))
    with counting(customer) as (client, sent), pytest.raises(openai.InternalServerError) as caught:
        ask(client, IMPATIENT)
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")
    assert len(sent) == len(upstream.record().requests) == 1
    customer.is_billed(0)


def test_an_upstream_that_cannot_be_reached_is_a_503_that_may_be_repeated(customer: Customer) -> None:
    with counting(customer, max_retries=1) as (client, sent), pytest.raises(openai.InternalServerError) as caught:
        ask(client, UNREACHABLE)
    assert (caught.value.status_code, caught.value.type) == (503, "server_error")
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert len(sent) == 2
    assert customer.stack.balance(customer.account_id).charged_nanousd == 0


# ---- answers that nobody waits for, and answers that break off ----


def test_a_client_that_times_out_pays_for_the_answer_that_was_made(
    customer: Customer, upstream: UpstreamProcess
) -> None:
    upstream.script(Answer(headers_delay_ms=500))
    with customer.client(timeout=0.2) as client, pytest.raises(openai.APITimeoutError):
        ask(client)
    [request] = customer.settled(1)
    assert request.event.ending == pb.ENDING_CLIENT_GONE
    customer.is_billed(ONE_TWO_THREE_NANOUSD)


def test_a_stream_that_its_client_closes_early_is_billed_in_full(customer: Customer, upstream: UpstreamProcess) -> None:
    upstream.script(*[Answer(events=20, gap_ms=75)] * 2)  # slow enough for a client on a busy machine
    with customer.client() as client:
        with client.chat.completions.create(model=MODEL, messages=words(), stream=True) as chat:
            assert next(chat).choices
        with client.responses.create(model=MODEL, input="one two three", stream=True) as response:
            assert next(response).type == "response.created"
    settled = customer.settled(2)
    assert [request.event.ending for request in settled] == [pb.ENDING_CLIENT_GONE] * 2
    assert all(report.whole and not report.peer_gone for report in upstream.record().reported)
    assert reported_cost_nanousd(upstream) == 2 * (3 * 1_000 + 20 * 2_000)
    customer.is_billed(reported_cost_nanousd(upstream), requests=2)


async def test_an_async_stream_that_is_cancelled_is_billed_in_full(
    customer: Customer, upstream: UpstreamProcess
) -> None:
    upstream.script(Answer(events=20, gap_ms=10))
    started = asyncio.Event()
    async with customer.async_client() as client:

        async def read() -> None:
            stream = await client.chat.completions.create(model=MODEL, messages=words(), stream=True)
            async with stream:
                async for _ in stream:
                    started.set()

        reading = asyncio.create_task(read())
        await started.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    await asyncio.to_thread(customer.is_billed, 3 * 1_000 + 20 * 2_000)
    assert reported_cost_nanousd(upstream) == 3 * 1_000 + 20 * 2_000


@pytest.mark.parametrize("mode", ["reset_mid_stream", "close_mid_stream", "error_event"])
@pytest.mark.parametrize("resource", ["chat", "responses"])
def test_a_stream_that_breaks_is_an_api_error_and_never_looks_finished(
    customer: Customer, upstream: UpstreamProcess, resource: str, mode: str
) -> None:
    upstream.script(answer_from_options({"mode": mode}))
    seen: list[str] = []
    with customer.client() as client, pytest.raises(openai.APIError) as caught:
        seen.extend(chat_marks(client) if resource == "chat" else response_marks(client))
    assert len(seen) >= 3
    assert not FINISHED & set(seen)
    assert not isinstance(caught.value, openai.APIConnectionError)  # it was told, not cut off
    if mode != "error_event":  # whose words are the upstream's own
        assert caught.value.code == "upstream_error"
    customer.is_billed(0)
