"""Who may spend what, at once (docs/billing.md, "Hold" and the refusals)."""

import asyncio

import pytest

from tests.harness.eventually import eventually
from tests.harness.stack import Json, Stack, metric
from tests.harness.upstream_answer import Answer
from tests.stack.client import Client, chat

pytestmark = pytest.mark.asyncio(loop_scope="session")

# One request of this model holds at most 100 x 2 micro-USD for the answer, and a few hundred bytes' tokens and the
# template's 512 for the prompt: about 0.001 USD.
SMALL: Json = {"max_output_length": 100}
# Batches as in production: few calls, and usage that is a fifth of a second late.
SETTINGS = {"edge": {"ship_linger_s": 0.2}}
CALLS = "tollgate_rpc_client_calls_total"


async def test_an_account_without_credit_gets_402_and_serves_after_a_credit(stack: Stack) -> None:
    customer = await stack.customer(usd=0)
    client = Client(stack.edge_url, customer.secret)
    for stream in (False, True):
        answer = await client.chat(chat(stream=stream))
        assert (answer.status, answer.error["type"]) == (402, "insufficient_quota")
        assert (answer.error["code"], answer.error["param"]) == ("INSUFFICIENT_BALANCE", None)
        assert "credit" in answer.error["message"].lower()
        assert answer.header("retry-after") is None
    assert stack.upstream.requests == []
    await stack.grant(customer.account_id, 1)

    async def serves() -> bool:
        return (await client.chat()).status == 200

    await eventually(serves, 2.0)


async def test_funds_used_up_are_402(stack: Stack) -> None:
    model = await stack.offer_new(**SMALL)
    customer = await stack.customer(usd=0.01)
    await stack.set_grace(customer.account_id, 0)
    client = Client(stack.edge_url, customer.secret)
    dear = Answer(prompt_tokens=400, completion_tokens=100)
    stack.upstream.default = dear

    async def refused() -> bool:
        return (await client.chat(chat(model=model))).status == 402

    await eventually(refused, 10.0)
    served = len(stack.upstream.requests)
    assert served >= 10  # of 0.0006 USD each; the last may run under-held, and cost more than was left
    found = await stack.settled(customer, served)
    assert sum(each.charged_nanousd for each in found) == served * 600_000
    balance = await stack.balance(customer.account_id)
    assert balance.posted_nanousd == 10_000_000 - served * 600_000
    assert -600_000 < balance.posted_nanousd <= 0
    await stack.audit()


async def test_funds_held_by_open_requests_are_429_and_come_back(stack: Stack) -> None:
    model = await stack.offer_new(max_output_length=1000)
    customer = await stack.customer(usd=0.0015)  # less than one hold: one at a time may run
    await stack.set_grace(customer.account_id, 0)
    client = Client(stack.edge_url, customer.secret)
    stack.upstream.script(Answer(headers_delay_ms=1500))
    first = asyncio.create_task(client.chat(chat(model=model)))
    await eventually(lambda: stack.upstream.requests)
    answer = await client.chat(chat(model=model))
    assert (answer.status, answer.error["type"]) == (429, "rate_limit_error")
    assert (answer.error["code"], answer.error["param"]) == ("funds_reserved", None)
    assert 1 <= int(answer.header("retry-after") or "") <= 60
    assert (await first).status == 200

    async def serves() -> bool:
        return (await client.chat(chat(model=model))).status == 200

    await eventually(serves, 3.0)
    await stack.settled(customer, 2)


async def test_many_requests_at_once_never_overrun_a_balance(stack: Stack) -> None:
    model = await stack.offer_new(**SMALL)
    customer = await stack.customer(usd=0.02)
    await stack.set_grace(customer.account_id, 0)
    client = Client(stack.edge_url, customer.secret)
    stack.upstream.default = Answer(prompt_tokens=600, completion_tokens=100)  # 0.0008 USD: nearly the whole hold
    answers = await asyncio.gather(*(client.chat(chat(model=model)) for _ in range(60)))
    statuses = [answer.status for answer in answers]
    served = statuses.count(200)
    assert {*statuses} <= {200, 402, 429}
    assert served == len(stack.upstream.requests)
    assert 10 <= served <= 26
    await stack.settled(customer, served)
    balance = await stack.balance(customer.account_id)
    assert balance.posted_nanousd == 20_000_000 - served * 800_000
    assert balance.posted_nanousd > -800_000  # one request beyond its funds at most
    await stack.audit()


async def test_a_smaller_limit_holds_less(stack: Stack) -> None:
    model = await stack.offer_new(max_output_length=50_000)
    customer = await stack.customer(usd=0.05)
    await stack.set_grace(customer.account_id, 0)
    client = Client(stack.edge_url, customer.secret)
    limits: list[Json] = [{"max_tokens": 100}, {"max_completion_tokens": 100}]
    for limit in limits:

        async def serves(limit: Json = limit) -> bool:
            return (await client.chat(chat(model=model, **limit))).status == 200

        await eventually(serves, 2.0)
    # The larger of the two counts: that is more than there is, so it runs under-held, as the account's last.
    answer = await client.chat(chat(model=model, max_tokens=1, max_completion_tokens=50_000))
    assert answer.status == 200
    holds = sorted(each.event.hold_nanousd for each in await stack.settled(customer, 3))
    assert holds[1] < 1_000_000
    assert 40_000_000 < holds[2] <= 50_000_000


async def test_grace_lets_an_account_go_below_zero_by_its_terms(stack: Stack) -> None:
    model = await stack.offer_new(**SMALL)
    customer = await stack.customer(usd=0.001)  # and 1 USD of grace, by default, since its first credit
    client = Client(stack.edge_url, customer.secret)
    stack.upstream.default = Answer(prompt_tokens=500, completion_tokens=100)
    for _ in range(5):
        assert (await client.chat(chat(model=model))).status == 200
    await stack.settled(customer, 5)
    assert (await stack.balance(customer.account_id)).posted_nanousd == 1_000_000 - 5 * 700_000


async def test_no_request_waits_for_a_call_of_its_own(stack: Stack) -> None:
    """The rule of the hot path. 1,000 requests, one after the other, as one customer; everything that the edge calls
    counts, watches and heartbeats included."""
    customer = await stack.customer(usd=50)
    client = Client(stack.edge_url, customer.secret)
    methods = ["Authenticate", "WatchKeys", "WatchSnapshot", "Acquire", "RecordUsage", "Heartbeat", "OpenSession"]

    def calls() -> dict[str, float]:
        services = {"Authenticate": "auth.v1.KeyService", "WatchKeys": "auth.v1.KeyService"}
        services |= {"WatchSnapshot": "catalog.v1.CatalogService"}
        return {
            method: sum(
                metric(
                    CALLS, method=f"/tollgate.{services.get(method, 'usage.v1.MeteringService')}/{method}", code=code
                )
                for code in ("OK", "CANCELLED", "UNAVAILABLE", "DEADLINE_EXCEEDED")
            )
            for method in methods
        }

    before = calls()
    async with client.connected() as connection:
        for number in range(1000):
            await connection.send(client.post(chat(stream=number % 4 == 0, max_tokens=2)))
            assert (await connection.whole()).status == 200
    made = {method: count - before[method] for method, count in calls().items() if count != before[method]}
    assert made["Authenticate"] == 1
    assert made["Acquire"] <= 10, made
    assert sum(made.values()) <= 100, made

    async def all_charged() -> bool:
        balance = await stack.balance(customer.account_id)
        return balance.charged_nanousd == 1000 * (3 * 1000 + 2 * 2000)

    await eventually(all_charged)


async def test_many_clients_with_a_new_key_share_one_look_up(stack: Stack) -> None:
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    method = "/tollgate.auth.v1.KeyService/Authenticate"
    before = metric(CALLS, method=method, code="OK")
    answers = await asyncio.gather(*(client.chat(chat(max_tokens=1)) for _ in range(50)))
    assert {answer.status for answer in answers} == {200}
    assert metric(CALLS, method=method, code="OK") == before + 1
