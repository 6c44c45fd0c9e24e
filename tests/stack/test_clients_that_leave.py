"""Clients that go away, and clients that read slowly (docs/billing.md, "How a request can end")."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from protos.usage.v1 import usage_pb2 as pb
from tests.harness.eventually import eventually
from tests.harness.stack import Customer, Stack, metric
from tests.harness.upstream_answer import Answer, answer_from_options
from tests.stack.client import CHAT, RESPONSES, Client, Connection, chat, responses

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETTINGS = {"edge": {"client_stall_s": 0.8}}
MB = 1 << 20


async def assert_billed_in_full(stack: Stack, customer: Customer, ending: "pb.Ending.ValueType") -> None:
    [request] = await stack.settled(customer, 1)
    assert (request.event.ending, request.event.source) == (ending, pb.USAGE_SOURCE_UPSTREAM_FINAL)
    assert request.charged_nanousd == 13_000
    assert stack.upstream.reported[0].whole
    assert not stack.upstream.reported[0].peer_gone


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("goodbye", ["close", "reset"])
async def test_a_client_that_leaves_a_stream_is_billed_in_full(
    stack: Stack, client: Client, customer: Customer, path: str, goodbye: str
) -> None:
    stack.upstream.script(Answer(gap_ms=30))
    async with client.connected() as connection:
        await connection.send(client.post(chat(stream=True) if path == CHAT else responses(stream=True), path=path))
        await connection.head()
        await anext(connection.pieces())
        getattr(connection, goodbye)()
    await assert_billed_in_full(stack, customer, pb.ENDING_CLIENT_GONE)


async def test_a_client_that_leaves_before_the_first_event_is_billed_in_full(
    stack: Stack, client: Client, customer: Customer
) -> None:
    stack.upstream.script(Answer(headers_delay_ms=100))
    async with client.connected() as connection:
        await connection.send(client.post(chat(stream=True)))
        await eventually(lambda: stack.upstream.requests)
    await assert_billed_in_full(stack, customer, pb.ENDING_CLIENT_GONE)


async def test_a_client_that_leaves_a_whole_answer_is_billed_in_full(
    stack: Stack, client: Client, customer: Customer
) -> None:
    stack.upstream.script(Answer(headers_delay_ms=100))
    async with client.connected() as connection:
        await connection.send(client.post(chat()))
        await eventually(lambda: stack.upstream.requests)
    await assert_billed_in_full(stack, customer, pb.ENDING_CLIENT_GONE)


@pytest.mark.parametrize(
    ("path", "last"),
    [(CHAT, b"data: [DONE]\n\n"), (RESPONSES, b"event: response.completed\n"), (CHAT, b'"total_tokens":8}}')],
    ids=["chat", "responses", "whole"],
)
async def test_a_client_that_closes_right_after_the_last_byte_has_completed(
    stack: Stack, client: Client, customer: Customer, path: str, last: bytes
) -> None:
    stream = not last.endswith(b"}}")
    async with client.connected() as connection:
        await connection.send(client.post(chat(stream=stream) if path == CHAT else responses(stream=True), path=path))
        await connection.reader.readuntil(last)
        connection.reset()
    await assert_billed_in_full(stack, customer, pb.ENDING_COMPLETED)


async def test_nothing_is_generated_again_for_a_client_that_has_gone(
    stack: Stack, client: Client, customer: Customer
) -> None:
    model = await stack.offer_new([{}, {}])
    stack.upstream.script(Answer(headers_delay_ms=200, status=500))
    async with client.connected() as connection:
        await connection.send(client.post(chat(model=model)))
        await eventually(lambda: stack.upstream.requests)
    [request] = await stack.settled(customer, 1)
    assert request.charged_nanousd == 0
    assert len(stack.upstream.requests) == 1


async def test_an_abandoned_stream_that_breaks_is_not_charged(stack: Stack, client: Client, customer: Customer) -> None:
    stack.upstream.script(answer_from_options({"mode": "reset_mid_stream", "gap_ms": 50}))
    async with client.connected() as connection:
        await connection.send(client.post(chat(stream=True)))
        await connection.head()
    [request] = await stack.settled(customer, 1)
    assert (request.event.ending, request.charged_nanousd) == (pb.ENDING_CLIENT_GONE, 0)


async def test_many_clients_that_leave_at_once_leave_nothing_open(
    stack: Stack, client: Client, customer: Customer
) -> None:
    stack.upstream.default = Answer(gap_ms=20)

    async def leave() -> None:
        async with client.connected() as connection:
            await connection.send(client.post(chat(stream=True, max_tokens=5)))
            await connection.head()

    await asyncio.gather(*(leave() for _ in range(50)))
    found = await stack.settled(customer, 50)
    assert sum(request.charged_nanousd for request in found) == 50 * 13_000
    await eventually(lambda: metric("tollgate_edge_open_streams") == 0)


# ---- slow clients ----


@asynccontextmanager
async def slowly(client: Client) -> AsyncIterator[Connection]:
    """A connection whose kernel buffers are small, and which reads nothing by itself."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", client.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    connection = Connection(reader, writer)
    try:
        yield connection
    finally:
        connection.reset()
        await asyncio.sleep(0)


async def test_a_slow_client_holds_its_upstream_back_and_gets_everything(
    stack: Stack, client: Client, customer: Customer
) -> None:
    stack.upstream.script(Answer(events=40, event_chars=MB, obey_max_tokens=False))
    async with slowly(client) as connection:
        before = psutil.Process().memory_info().rss
        await connection.send(client.post(chat(stream=True)))
        await eventually(lambda: stack.upstream.reported)
        [reported] = stack.upstream.reported
        sent = -1

        def stands_still() -> bool:
            nonlocal sent
            earlier, sent = sent, reported.body_bytes
            return earlier == sent > 0

        await eventually(stands_still)
        # What the kernel holds between the two (autotuned, some megabytes each way), and one buffer of ours.
        assert sent < 20 * MB
        assert psutil.Process().memory_info().rss - before < 30 * MB
        body = bytearray()
        async with asyncio.timeout(20):
            while not body.endswith(b"0\r\n\r\n"):
                piece = await connection.reader.read(MB)
                assert piece
                body += piece
        assert body.count(b"x" * 1000) > 0
        assert body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        [request] = await stack.settled(customer, 1)
        assert request.event.ending == pb.ENDING_COMPLETED
        assert request.event.tokens.completion_tokens == 40


async def test_a_client_that_stops_reading_counts_as_gone_and_is_billed(
    stack: Stack, client: Client, customer: Customer
) -> None:
    stack.upstream.script(Answer(events=40, event_chars=MB, obey_max_tokens=False))
    async with slowly(client) as connection:
        await connection.send(client.post(chat(stream=True)))
        [request] = await stack.settled(customer, 1, 10.0)
        assert (request.event.ending, request.event.tokens.completion_tokens) == (pb.ENDING_CLIENT_GONE, 40)


async def test_a_client_that_asks_on_and_never_reads_cannot_fill_memory(stack: Stack, client: Client) -> None:
    """Answers wait in the edge's buffer while nobody takes them: no further request is served before they are gone."""
    model = await stack.offer_new(description="x" * 4000)
    listing = client.request("GET", f"/v1/models/{model}")
    async with slowly(client) as connection:
        before = psutil.Process().memory_info().rss
        served = metric("tollgate_edge_requests_total", endpoint="models", model="", status="200")
        connection.writer.write(listing * 20_000)  # 80 MB of answers

        def count() -> float:
            return metric("tollgate_edge_requests_total", endpoint="models", model="", status="200") - served

        last = -1.0

        def stands_still() -> bool:
            nonlocal last
            earlier, last = last, count()
            return earlier == last > 0

        await eventually(stands_still, 20.0)
        assert last < 3_000, last
        assert psutil.Process().memory_info().rss - before < 40 * MB


async def test_a_large_whole_answer_to_a_slow_client_arrives(stack: Stack, client: Client) -> None:
    text = "x" * (8 * MB)
    stack.upstream.script(Answer(text=text, events=1))
    async with slowly(client) as connection:
        await connection.send(client.post(chat()))
        async with asyncio.timeout(20):
            head = await connection.head()
            body = await connection.reader.readexactly(int(head.header("content-length") or 0))
        assert json.loads(body)["choices"][0]["message"]["content"] == text
