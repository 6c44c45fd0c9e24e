"""What a key with limits sees (docs/limits.md): headers, refusals that tell the truth, one limit over several edges."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from protos.auth.v1 import auth_pb2
from tests.harness.eventually import eventually
from tests.harness.stack import Customer, Json, Stack, metric
from tests.harness.upstream_answer import Answer
from tests.stack.client import RESPONSES, Client, Response, chat, responses
from tests.stack.conftest import OpenStack

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLS = "tollgate_rpc_client_calls_total"
SHARE_LIMITS = "/tollgate.usage.v1.MeteringService/ShareLimits"
RATE_HEADERS = [
    f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")
]


def limits(requests: int = 0, tokens: int = 0, at_once: int = 0) -> auth_pb2.KeyLimits:
    return auth_pb2.KeyLimits(requests_per_minute=requests, tokens_per_minute=tokens, concurrent_requests=at_once)


async def limited(stack: Stack, **numbers: int) -> tuple[Customer, Client]:
    customer = await stack.customer(limits=limits(**numbers))
    return customer, Client(stack.edge_url, customer.secret)


def rates(answer: Response) -> dict[str, str | None]:
    return {name.removeprefix("x-ratelimit-"): answer.header(name) for name in RATE_HEADERS}


def seconds(text: str) -> float:
    """A duration of the headers."""
    if text.endswith("ms"):
        return float(text[:-2]) / 1000
    minutes, _, rest = text.rpartition("m")
    return float(minutes or 0) * 60 + float(rest.removesuffix("s"))


async def test_every_answer_says_what_is_left_streams_and_refusals_included(stack: Stack) -> None:
    _, client = await limited(stack, requests=60, tokens=100_000)
    first = await client.chat(chat(max_tokens=100))
    assert first.status == 200
    told = rates(first)
    assert (told["limit-requests"], told["remaining-requests"], told["reset-requests"]) == ("60", "59", "1s")
    assert told["limit-tokens"] == "100000"
    # 100 of the answer; of the prompt at most its bytes, and what the chat template adds.
    assert 99_000 <= int(told["remaining-tokens"] or 0) <= 100_000 - 100 - 3
    assert 0 < seconds(told["reset-tokens"] or "") < 1
    bodies: list[tuple[Json, str]] = [
        (chat(stream=True), "/v1/chat/completions"),
        (responses(), RESPONSES),
        (responses(stream=True), RESPONSES),
    ]
    for count, (body, path) in enumerate(bodies, start=2):
        answer = await client.chat(body, path=path)
        assert answer.status == 200
        assert 60 - count <= int(rates(answer)["remaining-requests"] or -1) <= 60 - count + 3  # time passes
    refused = await client.chat({"model": "no/such", "messages": []})
    assert refused.status == 400
    assert None not in rates(refused).values()
    stack.upstream.script(Answer(status=503))
    failed = await client.chat()
    assert failed.status >= 500
    assert None not in rates(failed).values()


async def test_an_answer_that_is_repeated_says_what_is_left_now(stack: Stack) -> None:
    customer = await stack.customer(limits=limits(requests=60, tokens=100_000), log_outputs=True)
    client = Client(stack.edge_url, customer.secret)
    asked = [("Idempotency-Key", f"again {customer.key_id}")]
    first = await client.chat(headers=asked)
    await stack.settled(customer, 1)
    again = await client.chat(headers=asked)
    assert (first.status, again.status, again.body) == (200, 200, first.body)
    assert again.header("idempotent-replayed") == "true"
    assert None not in rates(again).values()
    assert again.header("x-ratelimit-limit-requests") == "60"


async def test_a_key_without_limits_has_no_such_headers_and_causes_no_call(stack: Stack) -> None:
    client = Client(stack.edge_url, (await stack.customer()).secret)
    before = metric(CALLS, method=SHARE_LIMITS, code="OK")
    answer = await client.chat()
    assert set(rates(answer).values()) == {None}
    assert metric(CALLS, method=SHARE_LIMITS, code="OK") == before


async def test_a_refusal_is_429_and_who_waits_as_long_as_it_says_is_served(stack: Stack) -> None:
    _, client = await limited(stack, requests=30)
    answers = [await client.chat() for _ in range(31)]
    served = [answer.status for answer in answers].count(200)
    assert served >= 30
    refused = answers[-1] if answers[-1].status == 429 else await client.chat()
    assert (refused.status, refused.error["type"]) == (429, "rate_limit_error")
    assert (refused.error["code"], refused.error["param"]) == ("rate_limit_exceeded", None)
    assert "30 requests per minute" in refused.error["message"]
    assert rates(refused)["remaining-requests"] == "0"
    wait_s = int(refused.header("retry-after") or "")
    assert wait_s in (1, 2)
    await asyncio.sleep(wait_s)
    assert (await client.chat()).status == 200


async def test_tokens_are_reserved_by_what_a_request_can_use_and_come_back_by_what_it_used(stack: Stack) -> None:
    _, client = await limited(stack, tokens=3_000)
    for _ in range(6):  # each can use more than a third of it, and uses a few
        assert (await client.chat(chat(max_tokens=900))).status == 200
    stack.upstream.script(Answer(headers_delay_ms=1500))
    waiting = asyncio.create_task(client.chat(chat(max_tokens=1500)))
    await eventually(lambda: len(stack.upstream.requests) == 7)
    refused = await client.chat(chat(max_tokens=1500))
    assert refused.status == 429
    assert "3000 tokens per minute" in refused.error["message"]
    assert (await waiting).status == 200
    assert (await client.chat(chat(max_tokens=1500))).status == 200


async def test_a_request_that_could_never_fit_is_told_so_and_not_to_wait(stack: Stack) -> None:
    _, client = await limited(stack, tokens=1_000)
    refused = await client.chat(chat(max_tokens=1000))
    assert (refused.status, refused.error["code"]) == (400, "tokens_over_limit")
    assert "1000 tokens per minute" in refused.error["message"]
    assert refused.header("retry-after") is None
    assert (await client.chat(chat(max_tokens=10))).status == 200


async def test_an_upstream_that_reports_more_than_a_minute_stops_its_key_for_a_minute_at_most(stack: Stack) -> None:
    _, client = await limited(stack, tokens=20_000)
    _, other = await limited(stack, tokens=20_000)
    for count in (100_000, 10**12):
        stack.upstream.script(Answer(completion_tokens=count))
        assert (await client.chat(chat(max_tokens=50))).status == 200
        refused = await client.chat(chat(max_tokens=50))
        assert refused.status == 429
        assert "20000 tokens per minute" in refused.error["message"]
        wait_s = int(refused.header("retry-after") or "")
        assert 1 <= wait_s <= 4, "some seven hundred tokens come back within that"
        assert 50 < seconds(rates(refused)["reset-tokens"] or "") <= 60
        assert (await other.chat(chat(max_tokens=50))).status == 200, "the edge lives, and nobody else waits"
        await asyncio.sleep(wait_s)
        assert (await client.chat(chat(max_tokens=50))).status == 200


async def test_requests_at_once_are_limited_and_an_ended_one_makes_room(stack: Stack) -> None:
    customer, client = await limited(stack, at_once=2)
    stack.upstream.script(*(Answer(headers_delay_ms=700) for _ in range(2)))
    open_ones = [asyncio.create_task(client.chat(chat(stream=stream))) for stream in (True, False)]
    await eventually(lambda: len(stack.upstream.requests) == 2)
    refused = await client.chat()
    assert refused.status == 429
    assert "2 requests open at once" in refused.error["message"]
    assert refused.header("retry-after") == "1"
    await asyncio.sleep(1)
    assert (await client.chat()).status == 200, "the open ones have ended meanwhile"
    assert [answer.status for answer in await asyncio.gather(*open_ones)] == [200, 200]
    await stack.settled(customer, 3)


async def test_three_edges_admit_one_limit_together_and_one_alone_all_of_it(stack: Stack) -> None:
    customer = await stack.customer(limits=limits(requests=120, at_once=50))
    async with AsyncExitStack() as exits:
        urls = [stack.edge_url] + [await exits.enter_async_context(stack.further_edge(f"edge-{n}")) for n in (2, 3)]
        clients = [Client(url, customer.secret) for url in urls]
        start_s, statuses = time.monotonic(), []
        for _ in range(60):
            answers = await asyncio.gather(*(client.chat() for client in clients))
            statuses += [answer.status for answer in answers]
            if time.monotonic() - start_s > 8:
                break
        took_s = time.monotonic() - start_s
        served = statuses.count(200)
        assert {*statuses} <= {200, 429}
        # What an edge holds ahead, a tenth of the limit for each, may be with the wrong one for a moment.
        assert 120 * 0.8 <= served <= 120 * (1 + (took_s + 2) / 60) + 1
        # What the others have left over comes back to the one that is busy.
        before = sum([(await clients[0].chat()).status == 200 for _ in range(5)])
        assert before <= 5
        await asyncio.sleep(3)
        more = [(await clients[0].chat()).status for _ in range(4)]
        assert more == [200] * 4


async def hammered(urls: list[str], customer: Customer, body: Json, *, clients: int, for_s: float) -> tuple[int, float]:
    """Requests served to several clients of each edge, each asking on and on; and the seconds that it took."""
    start_s, served = time.monotonic(), 0

    async def ask_on(url: str) -> None:
        nonlocal served
        client = Client(url, customer.secret)
        async with client.connected() as connection:
            while time.monotonic() - start_s < for_s:
                answer = await (await connection.send(client.post(body))).whole()
                assert answer.status in (200, 429)
                served += answer.status == 200
                if answer.status == 429:
                    await asyncio.sleep(0.02)

    await asyncio.gather(*(ask_on(url) for url in urls for _ in range(clients)))
    return served, time.monotonic() - start_s


async def test_three_edges_keep_one_limit_of_tokens_and_one_of_open_requests_under_load(stack: Stack) -> None:
    async with AsyncExitStack() as exits:
        urls = [stack.edge_url] + [await exits.enter_async_context(stack.further_edge(f"load-{n}")) for n in (2, 3)]
        at_once = await stack.customer(limits=limits(at_once=4))
        slow = chat("[[headers_delay_ms=50]]")
        served, took_s = await hammered(urls, at_once, slow, clients=3, for_s=3)
        assert stack.upstream.open_answers_max == 4, "of nine clients that ask on and on"
        assert served >= 4 * took_s / 0.05 * 0.2
        tokens = await stack.customer(usd=1000, limits=limits(tokens=60_000))
        used = chat("[[completion_tokens=600]]", max_tokens=600)
        served, took_s = await hammered(urls, tokens, used, clients=2, for_s=5)
        [first, *_] = await stack.requests(tokens.account_id)
        total = served * (first.event.tokens.prompt_tokens + 600)
        assert 60_000 * 0.9 <= total <= 60_000 * (1 + (took_s + 2) / 60)


async def test_slots_move_between_edges_within_a_second_or_so(stack: Stack) -> None:
    customer = await stack.customer(limits=limits(at_once=2))
    async with stack.further_edge("edge-slots") as url:
        here, there = Client(stack.edge_url, customer.secret), Client(url, customer.secret)
        assert [a.status for a in await asyncio.gather(here.chat(), here.chat())] == [200, 200]
        assert [a.status for a in await asyncio.gather(there.chat(), there.chat())] == [200, 200]


async def test_in_steady_use_many_requests_share_a_call(stack: Stack) -> None:
    _, client = await limited(stack, requests=100_000, tokens=100_000_000, at_once=50)
    for _ in range(3):
        await client.chat()
    before = metric(CALLS, method=SHARE_LIMITS, code="OK")
    start_s = time.monotonic()
    count = 0
    while time.monotonic() - start_s < 3:
        assert (await client.chat()).status == 200
        count += 1
    calls = metric(CALLS, method=SHARE_LIMITS, code="OK") - before
    assert 1 <= calls <= 3 + 6 < count / 4


async def test_an_edge_limits_alone_while_usage_svc_cannot_be_asked(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    customer = await stack.customer(limits=limits(requests=20))
    client = Client(stack.edge_url, customer.secret)
    assert (await client.chat()).status == 200
    await stack.stop("usage")
    statuses = [(await client.chat()).status for _ in range(25)]
    assert statuses.count(200) in (19, 20)
    assert statuses[-1] == 429
    await stack.start("usage")


async def test_a_changed_limit_holds_within_a_second(stack: Stack) -> None:
    customer, client = await limited(stack, requests=60)
    assert rates(await client.chat())["limit-requests"] == "60"
    request = auth_pb2.UpdateKeyRequest(
        request_id=f"change {customer.key_id}", key=auth_pb2.Key(key_id=customer.key_id, limits=limits(requests=5))
    )
    request.update_mask.paths.append("limits")
    await stack.call(stack.auth.UpdateKey, request)

    async def told() -> bool:
        return rates(await client.chat())["limit-requests"] == "5"

    await eventually(told, 2.0)
