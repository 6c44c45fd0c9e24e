"""What a customer may try in order not to pay. Each was possible once."""

import pytest

from protos.usage.v1 import usage_pb2 as pb
from tests.harness.stack import Customer, Stack
from tests.harness.upstream_answer import Answer
from tests.stack.client import Client, chat

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_refusal_that_echoes_the_customers_words_does_not_switch_usage_off(
    stack: Stack, client: Client, customer: Customer
) -> None:
    model = await stack.offer_new()
    echo = b'{"error": {"message": "temperature: not a number: stream_options"}}'
    stack.upstream.script(Answer(status=400, body=echo), Answer(status=400, body=echo))
    refused = await client.chat(chat(stream=True, model=model, temperature="stream_options"))
    assert refused.status == 400
    answer = await client.chat(chat(stream=True, model=model))
    assert answer.status == 200
    assert stack.upstream.requests[-1].json["stream_options"] == {"include_usage": True}
    charged = [each for each in await stack.settled(customer, 2) if each.event.status_code == 200]
    assert [each.event.outcome for each in charged] == [pb.OUTCOME_MEASURED]


async def test_more_images_than_anybody_means_are_refused(stack: Stack, client: Client) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:,"}}
    content = [{"type": "text", "text": "hello"}, *[part] * 1001]
    answer = await client.chat(chat(messages=[{"role": "user", "content": content}]))
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_request_error")
    assert stack.upstream.requests == []


async def test_a_prompt_longer_than_the_catalog_believes_is_charged(
    stack: Stack, client: Client, customer: Customer
) -> None:
    model = await stack.offer_new(context_length=1000, max_output_length=500)
    stack.upstream.script(Answer(prompt_tokens=1001, completion_tokens=5))
    assert (await client.chat(chat(model=model))).status == 200
    [request] = await stack.settled(customer, 1)
    assert request.event.outcome == pb.OUTCOME_MEASURED
    assert request.charged_nanousd > 0
