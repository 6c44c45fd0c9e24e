"""gRPC between the processes: deadlines, bounds, balance, and connections that come of age."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import BytesValue, StringValue
from prometheus_client import REGISTRY

from chassis import client
from chassis.faults import (
    MAX_MESSAGE_CHARS,
    DeadlineExceeded,
    FieldViolation,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from chassis.server import MAX_MESSAGE_BYTES, MAX_METADATA_BYTES, RpcServer, Servicer, Serving
from protos import client as wire
from protos.auth.v1 import auth_pb2 as pb
from tests.harness.auth_service import auth_service
from tests.harness.eventually import eventually

SERVICE = "tests.Wire"
TIMEOUT_S = 10.0
Behaviour = Callable[[Any, Any], Any]


def servicer(**behaviours: Behaviour) -> Servicer:
    """A service of this test's own: each behaviour is a method; generators stream."""

    def add(_: object, server: Any) -> None:
        handlers: dict[str, Any] = {}
        for name, behaviour in behaviours.items():
            make = (
                grpc.unary_stream_rpc_method_handler
                if hasattr(behaviour, "streams")
                else grpc.unary_unary_rpc_method_handler
            )
            handlers[name] = make(
                behaviour,
                request_deserializer=StringValue.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    return Servicer(SERVICE, add, None)


def streams(behaviour: Behaviour) -> Behaviour:
    """Marks a behaviour as one that streams."""
    behaviour.streams = True  # type: ignore[attr-defined]  # read above
    return behaviour


@asynccontextmanager
async def serving(
    *, channels: int = 1, options: dict[str, Any] | None = None, **behaviours: Behaviour
) -> AsyncIterator[Any]:
    """Gives the channel, or so many; each has connections of its own."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            RpcServer([servicer(**behaviours)], Serving(drain_s=0.1, **(options or {})))
        )
        opened = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=[("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(channels)
        ]
        yield server.port if not channels else opened[0] if channels == 1 else opened


def unary(channel: grpc.aio.Channel, name: str) -> Any:
    return channel.unary_unary(
        f"/{SERVICE}/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=StringValue.FromString,
    )


async def call(channel: grpc.aio.Channel, name: str, timeout_s: float = TIMEOUT_S, **options: Any) -> Any:
    return await client.call(unary(channel, name), StringValue(), timeout_s=timeout_s, **options)


class Hanging:
    """A behaviour that never answers, and knows what became of it."""

    def __init__(self) -> None:
        self.begun = self.open = self.open_max = 0
        self.cancelled = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, request: StringValue, context: Any) -> StringValue:
        self.begun += 1
        self.open += 1
        self.open_max = max(self.open_max, self.open)
        try:
            await self.release.wait()
            await asyncio.sleep(0)  # so that those who come next are seen beside this one
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.open -= 1
        return StringValue()


# -- deadlines and ids --


async def test_a_call_without_a_deadline_gets_one_from_the_server_and_its_work_ends() -> None:
    hanging = Hanging()
    async with serving(Hang=hanging, options={"call_timeout_s": 0.2}) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await unary(channel, "Hang")(StringValue())
        failure = wire.failure_from_rpc(late.value)
        assert (failure.code, failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        assert "not done within 0.2 s" in failure.message
        assert hanging.cancelled.is_set()


async def test_work_ends_at_the_callers_deadline_and_at_the_longest_that_the_server_allows() -> None:
    hanging = Hanging()
    async with serving(Hang=hanging, options={"call_timeout_s_max": 0.3}) as channel:
        start_s = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await call(channel, "Hang", timeout_s=0.1)
        await asyncio.wait_for(hanging.cancelled.wait(), TIMEOUT_S)
        hanging.cancelled.clear()
        with pytest.raises(DeadlineExceeded):
            await call(channel, "Hang", timeout_s=60)
        assert hanging.cancelled.is_set()
        assert time.monotonic() - start_s < 5


async def test_what_a_call_calls_in_turn_has_its_request_id_and_no_later_deadline() -> None:
    seen: dict[str, Any] = {}

    async def inner(request: StringValue, context: Any) -> StringValue:
        seen.update(context.invocation_metadata())
        seen["remaining_s"] = context.time_remaining()
        return StringValue()

    async with serving(Inner=inner) as second:

        async def outer(request: StringValue, context: Any) -> StringValue:
            answer: StringValue = await call(second, "Inner", timeout_s=60)
            return answer

        async with serving(Outer=outer) as first:
            await call(first, "Outer", timeout_s=2, request_id="request-7")
    assert seen["x-request-id"] == "request-7"
    assert 0 < seen["remaining_s"] <= 2


async def test_every_error_carries_its_reason_the_fields_and_the_calls_id() -> None:
    async def refuse(request: StringValue, context: Any) -> StringValue:
        raise InvalidArgument("name", "give one")

    async def break_down(request: StringValue, context: Any) -> StringValue:
        raise RuntimeError("a secret that is in no answer")

    async with serving(Refuse=refuse, Break=break_down) as channel:
        with pytest.raises(wire.CallFailed) as refused:
            await wire.call(unary(channel, "Refuse"), StringValue(), timeout_s=TIMEOUT_S, request_id="request-8")
        assert refused.value.violations == (wire.Violation("name", "give one"),)
        assert (refused.value.reason, refused.value.request_id) == ("INVALID_FIELD", "request-8")
        with pytest.raises(Internal) as broken:
            await call(channel, "Break", request_id="request-9")
        assert "secret" not in str(broken.value)
        assert "request-9" in str(broken.value)


# -- bounds --


async def test_an_error_that_says_too_much_is_cut_and_still_arrives() -> None:
    violations = [FieldViolation("names", f"{number}: {'x' * 900}") for number in range(1000)]

    async def refuse(request: StringValue, context: Any) -> StringValue:
        raise InvalidArgument("names", "é" * 100_000, violations=violations)

    async with (
        serving(Refuse=refuse, channels=0) as port,
        client.channel(f"127.0.0.1:{port}") as channel,
    ):
        with pytest.raises(InvalidArgument) as refused:
            await call(channel, "Refuse")
        assert refused.value.reason == "INVALID_FIELD"
        assert len(refused.value.message) == MAX_MESSAGE_CHARS
        assert [each.message[:2] for each in refused.value.violations[:3]] == ["0:", "1:", "2:"]
        assert 10 < len(refused.value.violations) < 50


async def test_more_calls_than_are_allowed_at_once_are_refused_at_once() -> None:
    hanging = Hanging()
    async with serving(Hang=hanging, options={"calls_max": 3}) as channel:
        calls = [asyncio.ensure_future(call(channel, "Hang")) for _ in range(10)]
        await eventually(lambda: sum(each.done() for each in calls) == 7)
        assert all(isinstance(each.exception(), ResourceExhausted) for each in calls if each.done())
        assert hanging.begun == 3
        hanging.release.set()
        await asyncio.gather(*calls, return_exceptions=True)
        assert sum(each.exception() is None for each in calls) == 3


async def test_more_calls_on_one_connection_than_are_allowed_wait_at_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chassis.server.MAX_CONCURRENT_STREAMS", 3)
    hanging = Hanging()
    async with serving(Hang=hanging, channels=0) as port, client.channel(f"127.0.0.1:{port}") as channel:
        calls = [asyncio.ensure_future(call(channel, "Hang")) for _ in range(10)]
        await eventually(lambda: hanging.begun == 3)
        hanging.release.set()
        assert len(await asyncio.gather(*calls)) == 10, "nobody is refused"
        assert hanging.open_max == 3


async def test_more_metadata_than_is_allowed_is_refused_and_the_next_call_is_not() -> None:
    async def answer(request: StringValue, context: Any) -> StringValue:
        return StringValue()

    async with serving(Answer=answer) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await unary(channel, "Answer")(
                StringValue(), metadata=(("x-much", "x" * (2 * MAX_METADATA_BYTES)),), timeout=TIMEOUT_S
            )
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await call(channel, "Answer")


async def test_more_connections_than_are_allowed_wait_outside() -> None:
    async def answer(request: StringValue, context: Any) -> StringValue:
        return StringValue()

    async with serving(Answer=answer, channels=3, options={"connections_max": 2}) as channels:
        answered = await asyncio.gather(
            *(call(each, "Answer", timeout_s=1) for each in channels), return_exceptions=True
        )
        assert sum(isinstance(each, StringValue) for each in answered) == 2
        await channels[[isinstance(each, StringValue) for each in answered].index(True)].close()
        refused = channels[[isinstance(each, StringValue) for each in answered].index(False)]

        async def is_let_in() -> bool:
            try:
                await call(refused, "Answer", timeout_s=1)
            except (DeadlineExceeded, Unavailable):
                return False
            return True

        await eventually(is_let_in, TIMEOUT_S)


async def test_a_message_over_the_limit_is_refused_in_either_direction() -> None:
    async def grow(request: StringValue, context: Any) -> BytesValue:
        return BytesValue(value=bytes(MAX_MESSAGE_BYTES + 1))

    async with serving(Grow=grow) as channel:
        too_large = StringValue(value="x" * (MAX_MESSAGE_BYTES + 1))
        with pytest.raises(ResourceExhausted):
            await client.call(unary(channel, "Grow"), too_large, timeout_s=TIMEOUT_S)
        with pytest.raises(ResourceExhausted):
            await call(channel, "Grow")


async def test_a_reader_that_does_not_read_stops_the_writer_and_is_cut_with_its_connection() -> None:
    written, ended = 0, asyncio.Event()

    @streams
    async def pour(request: StringValue, context: Any) -> AsyncIterator[BytesValue]:
        nonlocal written
        try:
            while True:
                yield BytesValue(value=bytes(1024 * 1024))
                written += 1
        finally:
            ended.set()

    async with serving(Pour=pour, options={"connection_age_s": 1.0}) as channel:
        stream = channel.unary_stream(
            f"/{SERVICE}/Pour", request_serializer=lambda message: message.SerializeToString()
        )(StringValue())
        await stream.read()
        await asyncio.wait_for(ended.wait(), TIMEOUT_S)
        assert written < 64
        stream.cancel()


@pytest.mark.parametrize(
    "opening",
    [
        pytest.param(b"", id="says nothing"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)), id="answers no ping"),
    ],
)
async def test_a_connection_whose_other_end_is_silent_is_closed(opening: bytes) -> None:
    quick = {"keepalive_s": 0.3, "keepalive_timeout_s": 0.3, "handshake_timeout_s": 0.5}
    async with serving(channels=0, options=quick) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(opening)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while await reader.read(4096):
                    pass
        finally:
            writer.close()


# -- balance and age --


async def test_calls_go_round_all_addresses_and_on_to_the_others_when_one_goes() -> None:
    served: dict[str, int] = {"a": 0, "b": 0}

    def counting(name: str) -> Behaviour:
        async def answer(request: StringValue, context: Any) -> StringValue:
            served[name] += 1
            return StringValue()

        return answer

    async with serving(Answer=counting("b"), channels=0) as port_b:
        async with serving(Answer=counting("a"), channels=0) as port_a:
            channel = client.channel(f"ipv4:127.0.0.1:{port_a},127.0.0.1:{port_b}")
            await eventually(lambda: _both(channel, served))
            before = dict(served)
            for _ in range(20):
                await call(channel, "Answer")
            assert served == {name: count + 10 for name, count in before.items()}
        for _ in range(20):
            await call(channel, "Answer")
        assert served["b"] >= before["b"] + 30
        await channel.close()


async def _both(channel: grpc.aio.Channel, served: dict[str, int]) -> bool:
    await call(channel, "Answer")
    return all(served.values())


async def test_a_watch_whose_connection_comes_of_age_resumes_silently_and_misses_nothing(sqlite_url: str) -> None:
    async with auth_service(sqlite_url, watch_heartbeat_s=1.0, connection_age_s=1.0) as auth:
        account = await auth.create_account()
        key_ids: list[str] = []
        seen: list[str] = []
        broken: list[str] = []
        revision = 0

        async def read() -> None:
            nonlocal revision
            async for message in wire.follow(
                auth.keys.WatchKeys,
                lambda: pb.WatchKeysRequest(after_revision=revision),  # noqa: B023 - it is asked for its newest value
                first_timeout_s=TIMEOUT_S,
                on_break=broken.append,
                observe=lambda method, code, _: endings.append(code),
            ):
                kind = message.WhichOneof("message")
                revision = getattr(message, str(kind)).revision
                if kind == "change":
                    seen.append(message.change.key_id)

        endings: list[str] = []
        reading = asyncio.create_task(read())
        await eventually(lambda: revision > 0)
        while len(endings) < 3:
            key_ids.append((await auth.create_key(account)).key.key_id)
            await auth.revoke_key(key_ids[-1])
        await eventually(lambda: set(key_ids) <= set(seen))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert not broken
        assert endings[:3] == ["OK", "OK", "OK"]
        assert len(seen) == len(set(seen)), "what was seen is not sent again"
        calls = REGISTRY.get_sample_value(
            "tollgate_rpc_server_calls_total", {"method": "/tollgate.auth.v1.KeyService/WatchKeys", "code": "OK"}
        )
        assert (calls or 0) >= 3


async def test_a_watch_that_has_nothing_to_say_ends_with_age_too() -> None:
    closed = asyncio.Event()

    @streams
    async def say_nothing(request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        try:
            await asyncio.Event().wait()
            yield StringValue()
        finally:
            closed.set()

    async with serving(Silent=say_nothing, options={"connection_age_s": 0.3}) as channel:
        stream = channel.unary_stream(
            f"/{SERVICE}/Silent", request_serializer=lambda message: message.SerializeToString()
        )(StringValue())
        assert await asyncio.wait_for(stream.read(), TIMEOUT_S) is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK
        assert closed.is_set()


async def test_a_new_channel_does_not_inherit_how_long_an_old_one_waits_after_refusals(unused_tcp_port: int) -> None:
    async def echo(request: StringValue, context: Any) -> StringValue:
        return request

    address = f"127.0.0.1:{unused_tcp_port}"
    async with client.channel(address) as old:
        refusing_until_s = time.monotonic() + 1.0  # by then it tries once a second
        while time.monotonic() < refusing_until_s:
            with pytest.raises(Unavailable):
                await call(old, "Echo")
        async with (
            RpcServer([servicer(Echo=echo)], Serving(port=unused_tcp_port, drain_s=0.1)),
            client.channel(address) as new,
        ):
            assert await call(new, "Echo") == StringValue()
