"""What is still open when an edge's drain time is over is ended, told and billed (docs/billing.md, "How a request can
end")."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from protos.usage.v1 import usage_pb2 as pb
from tests.harness.eventually import eventually
from tests.harness.stack import Customer, Json, Stack, metric
from tests.harness.upstream_answer import Answer, Ending, Framing
from tests.stack.client import CHAT, RESPONSES, Client, Connection, chat, responses
from tests.stack.conftest import OpenStack

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHORT: Json = {"drain_s": 0.3}
SILENT = Answer(headers_delay_ms=30_000)
STALLING = Answer(ending=Ending.STALL, ending_after=2)
# Its end is the connection's, so whoever closes that must not pass for its end.
HALF = Answer(ending=Ending.STALL, ending_after_bytes=40, framing=Framing.CLOSE)
BOTH = pytest.mark.parametrize("path", [CHAT, RESPONSES])


def ended(request: pb.RequestSummary) -> tuple[str, str]:
    event = request.event
    return (
        pb.Outcome.Name(event.outcome).removeprefix("OUTCOME_").lower(),
        pb.Ending.Name(event.ending).removeprefix("ENDING_").lower(),
    )


async def stopped_in_time(stack: Stack) -> None:
    start_s = time.monotonic()
    await stack.stop("edge")
    assert time.monotonic() - start_s < 5.0  # the upstreams would have been silent for half a minute
    await eventually(lambda: all(each.whole or each.peer_gone for each in stack.upstream.reported))


async def asked(stack: Stack, connection: Connection, client: Client, body: Json, path: str = CHAT) -> None:
    """Sends a request and waits until its upstream has it."""
    before = len(stack.upstream.requests)
    await connection.send(client.post(body, path=path))
    await eventually(lambda: len(stack.upstream.requests) > before)


async def only(stack: Stack, customer: Customer) -> pb.RequestSummary:
    """The one record; also the next start finds nothing that was left without an outcome."""
    [request] = await stack.settled(customer, 1)
    await stack.start("edge")
    edge = stack.edge
    assert edge is not None
    await asyncio.wait_for(edge.meter.until_worked_off(), 5.0)
    assert [each.event for each in await stack.requests(customer.account_id)] == [request.event]
    await stack.audit()
    return request


@BOTH
@pytest.mark.parametrize("answer", [STALLING, SILENT], ids=["in the stream", "before its head"])
async def test_a_stream_that_is_read_on_is_estimated(fresh_stack: OpenStack, path: str, answer: Answer) -> None:
    stack = await fresh_stack(edge=SHORT)
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    stack.upstream.script(answer)
    async with client.connected() as connection:
        body = chat(stream=True) if path == CHAT else responses(stream=True)
        await asked(stack, connection, client, body, path)
        if answer is STALLING:
            await connection.head()
            await anext(connection.pieces())
    await eventually(lambda: metric("tollgate_edge_abandoned_drains") == 1)
    await stopped_in_time(stack)
    request = await only(stack, customer)
    assert ended(request) == ("estimated", "client_gone")
    assert 0 < request.charged_nanousd <= request.event.hold_nanousd
    assert (request.event.tokens.completion_tokens > 0) == (answer is STALLING)
    assert [each.failure for each in request.event.attempts] == ["stopped"]
    assert metric("tollgate_edge_abandoned_drains") == 0


@pytest.mark.parametrize("answer", [SILENT, HALF], ids=["before its head", "in its body"])
async def test_a_whole_answer_whose_client_has_left_is_estimated(fresh_stack: OpenStack, answer: Answer) -> None:
    stack = await fresh_stack(edge=SHORT)
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    stack.upstream.script(answer)
    async with client.connected() as connection:
        await asked(stack, connection, client, chat())
    await stopped_in_time(stack)
    request = await only(stack, customer)
    assert ended(request) == ("estimated", "client_gone")
    assert 0 < request.charged_nanousd <= request.event.hold_nanousd
    assert request.event.tokens.completion_tokens == 0


@BOTH
async def test_a_client_that_stays_in_a_stream_is_told_that_it_broke(fresh_stack: OpenStack, path: str) -> None:
    stack = await fresh_stack(edge=SHORT)
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    stack.upstream.script(STALLING)
    async with client.connected() as connection:
        body = chat(stream=True) if path == CHAT else responses(stream=True)
        await asked(stack, connection, client, body, path)
        assert (await connection.head()).status == 200
        stopping = asyncio.create_task(stopped_in_time(stack))
        told = b"".join([piece async for piece in connection.pieces()])
        assert b"error" in told.rpartition(b"data: ")[2]
        assert b"[DONE]" not in told
        assert b"response.completed" not in told
        assert await connection.closed()
        await stopping
    request = await only(stack, customer)
    assert ended(request) == ("waived", "upstream_failed")
    assert request.charged_nanousd == 0


@pytest.mark.parametrize(
    ("answer", "streamed"),
    [(SILENT, False), (HALF, False), (SILENT, True)],
    ids=["whole, before its head", "whole, in its body", "stream, before its head"],
)
async def test_a_client_that_waits_for_its_answer_gets_502_and_nothing_is_asked_again(
    fresh_stack: OpenStack, answer: Answer, streamed: bool
) -> None:
    stack = await fresh_stack(edge=SHORT)
    model = await stack.offer_new([{}, {}])
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    stack.upstream.script(answer)
    async with client.connected() as connection:
        await asked(stack, connection, client, chat(model=model, stream=streamed))
        stopping = asyncio.create_task(stopped_in_time(stack))
        told = await connection.whole()
        assert (told.status, told.error["type"]) == (502, "server_error")
        assert told.header("x-should-retry") == "false"
        assert await connection.closed()
        await stopping
    request = await only(stack, customer)
    assert ended(request) == ("none", "upstream_failed")
    assert [each.failure for each in request.event.attempts] == ["stopped"]
    assert len(stack.upstream.requests) == 1


async def test_who_reaches_an_upstream_only_then_gets_503(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack(edge=SHORT)
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    late = client.post(chat(), [("Expect", "100-continue")])
    stack.upstream.script(SILENT)
    async with client.connected() as connection, client.connected() as other:
        await asked(stack, connection, client, chat())
        await other.send(late[:-10])
        assert (await other.head()).status == 100
        stopping = asyncio.create_task(stopped_in_time(stack))
        assert (await connection.whole()).status == 502
        await other.send(late[-10:])
        answer = await other.whole()
        assert answer.status == 503
        assert answer.header("x-should-retry") != "false"
        await stopping
    found = await stack.settled(customer, 2)
    assert [ended(request) for request in found] == [("none", "upstream_failed")] * 2
    assert len(stack.upstream.requests) == 1


@contextmanager
def unreachable() -> Iterator[str]:
    """A base URL to which a connection is never refused, and never made: its listener's queue is full."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(2):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@pytest.mark.parametrize("stays", [True, False])
async def test_who_is_still_being_connected_is_not_waited_for(fresh_stack: OpenStack, stays: bool) -> None:
    stack = await fresh_stack(edge=SHORT)
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    with unreachable() as url:
        model = await stack.offer_new([{"base_url": url, "connect_timeout_s": 30}, {}])
        edge = stack.edge
        assert edge is not None
        assert (await client.chat()).status == 200  # its key and funds are there: the next one waits for nothing else
        async with client.connected() as connection:
            await connection.send(client.post(chat(model=model)))
            await eventually(lambda: edge.generator.open_requests)
            if not stays:
                connection.reset()
            stopping = asyncio.create_task(stopped_in_time(stack))
            if stays:
                assert (await connection.whole()).status == 503
            await stopping
    _, request = await stack.settled(customer, 2)
    assert ended(request) == ("none", "upstream_failed")
    assert {each.failure for each in request.event.attempts} <= {"connect", "connect_timeout"}
    assert len(stack.upstream.requests) == 1
