"""What a key with a spend limit sees: it spends up to its limit and not beyond, on several edges, whatever is open."""

import asyncio

import pytest

from protos.auth.v1 import auth_pb2
from tests.harness.eventually import eventually
from tests.harness.stack import Json, Stack
from tests.harness.upstream_answer import Answer
from tests.stack.client import Client, chat
from tests.stack.conftest import OpenStack

pytestmark = pytest.mark.asyncio(loop_scope="session")

SMALL: Json = {"max_output_length": 100}  # one request holds about 0.001 USD
DAY, MONTH = auth_pb2.SPEND_PERIOD_DAY, auth_pb2.SPEND_PERIOD_MONTH
NANOUSD = 1_000_000_000


def limit(usd: float, period: auth_pb2.SpendPeriod.ValueType = MONTH) -> auth_pb2.SpendLimit:
    return auth_pb2.SpendLimit(limit_nanousd=round(usd * NANOUSD), period=period)


@pytest.mark.parametrize("period", [DAY, MONTH])
async def test_a_key_spends_up_to_its_limit_and_its_account_goes_on(
    stack: Stack, period: auth_pb2.SpendPeriod.ValueType
) -> None:
    model = await stack.offer_new(**SMALL)
    customer = await stack.customer(spend_limit=limit(0.01, period))
    client = Client(stack.edge_url, customer.secret)
    stack.upstream.default = Answer(prompt_tokens=400, completion_tokens=100)  # 0.0006 USD

    async def used_up() -> bool:
        return (await client.chat(chat(model=model))).status == 402

    await eventually(used_up, 20.0)
    answer = await client.chat(chat(model=model))
    assert (answer.error["type"], answer.error["code"]) == ("insufficient_quota", "SPEND_LIMIT_REACHED")
    assert ("day" if period == DAY else "month") in answer.error["message"]
    assert answer.header("retry-after") is None
    served = len(stack.upstream.requests)
    found = await stack.settled(customer, served)
    spent = sum(each.charged_nanousd for each in found)
    assert spent == served * 600_000
    assert 0.009 * NANOUSD <= spent <= 0.01 * NANOUSD
    other = await stack.create_key(customer.account_id)
    assert (await Client(stack.edge_url, other.secret).chat(chat(model=model))).status == 200
    await stack.settled(customer, served + 1)  # the audit wants nothing to move
    await stack.audit()


async def test_many_requests_at_once_on_two_edges_stay_within_the_limit(stack: Stack) -> None:
    model = await stack.offer_new(**SMALL)
    customer = await stack.customer(spend_limit=limit(0.02))
    stack.upstream.default = Answer(prompt_tokens=600, completion_tokens=100)  # 0.0008 USD: nearly the whole hold
    async with stack.further_edge("edge-spend") as url:
        clients = [Client(each, customer.secret) for each in (stack.edge_url, url)]
        answers = await asyncio.gather(*(clients[n % 2].chat(chat(model=model)) for n in range(60)))
        statuses = [answer.status for answer in answers]
        served = statuses.count(200)
        assert {*statuses} <= {200, 402, 429}
        assert 10 <= served <= 25
        found = await stack.settled(customer, served)
    assert sum(each.charged_nanousd for each in found) == served * 800_000 <= 0.02 * NANOUSD
    await stack.audit()


async def test_what_an_open_request_holds_is_429_and_comes_back(stack: Stack) -> None:
    model = await stack.offer_new(max_output_length=1000)
    customer = await stack.customer(spend_limit=limit(0.003))  # one hold of 0.002 to 0.003
    client = Client(stack.edge_url, customer.secret)
    stack.upstream.script(Answer(headers_delay_ms=1500))
    first = asyncio.create_task(client.chat(chat(model=model)))
    await eventually(lambda: stack.upstream.requests)
    answer = await client.chat(chat(model=model))
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
    assert "spend limit" in answer.error["message"]
    assert (await first).status == 200
    assert (await client.chat(chat(model=model))).status == 200


async def test_a_raised_limit_serves_again(stack: Stack) -> None:
    customer = await stack.customer(spend_limit=limit(0.0000001))
    client = Client(stack.edge_url, customer.secret)
    assert (await client.chat()).status == 402
    request = auth_pb2.UpdateKeyRequest(
        request_id=f"raise {customer.key_id}", key=auth_pb2.Key(key_id=customer.key_id, spend_limit=limit(1))
    )
    request.update_mask.paths.append("spend_limit")
    await stack.call(stack.auth.UpdateKey, request)

    async def serves() -> bool:
        return (await client.chat()).status == 200

    await eventually(serves, 3.0)


async def test_an_account_without_funds_is_told_so_and_the_keys_limit_stays_whole(stack: Stack) -> None:
    customer = await stack.customer(usd=0, spend_limit=limit(0.01))
    client = Client(stack.edge_url, customer.secret)
    for _ in range(20):
        answer = await client.chat()
        assert (answer.status, answer.error["code"]) == (402, "INSUFFICIENT_BALANCE")
    await stack.grant(customer.account_id, 1)

    async def serves() -> bool:
        return (await client.chat()).status == 200

    await eventually(serves, 3.0)


async def test_spend_survives_a_restart_of_the_edge_and_of_usage_svc(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    model = await stack.offer_new(**SMALL)
    customer = await stack.customer(spend_limit=limit(0.004))
    client = Client(stack.edge_url, customer.secret)
    stack.upstream.default = Answer(prompt_tokens=400, completion_tokens=100)
    assert (await client.chat(chat(model=model))).status == 200
    await stack.settled(customer, 1)
    await stack.restart("edge")
    await stack.restart("usage")

    async def used_up() -> bool:
        return (await client.chat(chat(model=model))).status == 402

    await eventually(used_up, 20.0)
    found = await stack.requests(customer.account_id)
    assert sum(each.charged_nanousd for each in found) <= 4_000_000


async def test_without_usage_svc_a_spend_limit_is_closed_and_not_free(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    customer = await stack.customer(spend_limit=limit(1))
    await stack.stop("usage")
    client = Client(stack.edge_url, customer.secret)
    assert (await client.chat()).status == 503
    await stack.start("usage")

    async def serves() -> bool:
        return (await client.chat()).status == 200

    await eventually(serves, 10.0)
