"""What the edge bounds for those who have no key: keys that are guessed, connections, slow headers; and suspensions."""

import asyncio

import pytest

from chassis import secret_token
from protos.auth.v1 import auth_pb2
from tests.harness.eventually import eventually
from tests.harness.stack import Stack, metric
from tests.harness.upstream_answer import Answer
from tests.stack.client import Client, chat
from tests.stack.conftest import OpenStack

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETTINGS = {
    "edge": {
        "connections_per_address_max": 20,
        "header_timeout_s": 0.5,
    }
}


def guessed(number: int) -> str:
    return secret_token.make("tg_", number.to_bytes(24, "big"))


async def test_guessing_keys_is_slowed_and_known_keys_go_on_working(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack(edge={"failed_keys_per_minute": 5})
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    assert (await client.chat()).status == 200
    misses = metric("tollgate_edge_key_cache_misses_total")
    answers = [await Client(stack.edge_url, guessed(number)).chat() for number in range(20)]
    assert [answer.status for answer in answers[:5]] == [401] * 5
    assert {answer.status for answer in answers[6:]} == {429}
    assert (answers[-1].error["type"], answers[-1].error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert 1 <= int(answers[-1].header("retry-after") or "") <= 60
    assert metric("tollgate_edge_key_cache_misses_total") - misses <= 7, "those who are told to wait cost no look-up"
    assert (await client.chat()).status == 200
    assert (await Client(stack.edge_url, "no key at all").chat()).status == 401


async def test_guesses_at_once_are_slowed_as_well_and_one_wrong_key_again_and_again_is_one_guess(
    fresh_stack: OpenStack,
) -> None:
    stack = await fresh_stack(edge={"failed_keys_per_minute": 5})
    misses = metric("tollgate_edge_key_cache_misses_total")
    same = await asyncio.gather(*(Client(stack.edge_url, guessed(1000)).chat() for _ in range(50)))
    assert {answer.status for answer in same} == {401}
    customer = await stack.customer()
    assert (await Client(stack.edge_url, customer.secret).chat()).status == 200, "who shares the address does not wait"
    answers = await asyncio.gather(*(Client(stack.edge_url, guessed(number)).chat() for number in range(100)))
    statuses = [answer.status for answer in answers]
    assert {*statuses} == {401, 429}
    assert statuses.count(401) <= 6
    assert metric("tollgate_edge_key_cache_misses_total") - misses <= 9


async def test_connections_of_one_address_are_bounded(stack: Stack, client: Client) -> None:
    refused = metric("tollgate_edge_connections_refused_total")
    opened = [await asyncio.open_connection("127.0.0.1", client.port) for _ in range(30)]
    await eventually(lambda: metric("tollgate_edge_connections_refused_total") - refused >= 10)
    for _, writer in opened:
        writer.close()

    async def serves() -> bool:
        try:
            return (await client.chat()).status == 200
        except (asyncio.IncompleteReadError, ConnectionError):  # the edge has not seen yet that the others have gone
            return False

    await eventually(serves)


async def test_a_connection_without_a_whole_first_request_is_closed(stack: Stack, client: Client) -> None:
    for begun in (b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"):
        async with client.connected() as connection:
            await connection.send(begun)
            assert await connection.closed(5.0)
    async with client.connected() as connection:  # one that has served a request is kept
        assert (await (await connection.send(client.post(chat()))).whole()).status == 200
        await asyncio.sleep(0.8)
        assert (await (await connection.send(client.post(chat()))).whole()).status == 200


async def test_a_suspended_account_is_admitted_no_more_at_any_edge_and_its_open_streams_finish(stack: Stack) -> None:
    customer = await stack.customer()
    async with stack.further_edge("edge-suspension") as url:
        clients = [Client(each, customer.secret) for each in (stack.edge_url, url)]
        assert [(await client.chat()).status for client in clients] == [200, 200]
        stack.upstream.reset()
        stack.upstream.script(*(Answer(gap_ms=500) for _ in clients))
        streaming = [asyncio.create_task(client.chat(chat(stream=True))) for client in clients]
        await eventually(lambda: len(stack.upstream.requests) == 2)
        await stack.set_state(customer.account_id, auth_pb2.ACCOUNT_STATE_SUSPENDED)

        async def refused() -> bool:
            return {(await client.chat()).status for client in clients} == {403}

        await eventually(refused, 1.5)
        assert not any(stream.done() for stream in streaming), "the streams were to outlast the suspension"
        for answer in await asyncio.gather(*streaming):
            assert answer.status == 200
            assert answer.body.endswith(b"data: [DONE]\n\n")

        async def billed() -> bool:
            found = await stack.requests(customer.account_id)
            return sum(each.event.streamed and each.charged_nanousd > 0 for each in found) == 2

        await eventually(billed)
