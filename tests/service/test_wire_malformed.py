"""Whatever anybody sends to any method of any service: an answer or a clear refusal, and a refusal changes nothing."""

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from chassis.database import Database, open_engine
from chassis.faults import ERROR_DOMAIN
from protos.client import REQUEST_ID_KEY
from tests.harness.malformed import Change, changes, scrambled
from tests.harness.plants import Good, auth_plant, catalog_plant
from tests.harness.usage_plant import usage_plant

CALL_TIMEOUT_S = 30.0
SCRAMBLED_PER_METHOD = 40
PLANTS: Mapping[str, Callable[[str], AbstractAsyncContextManager[tuple[int, Mapping[str, Good]]]]] = {
    "auth": auth_plant,
    "catalog": catalog_plant,
    "usage": usage_plant,
}
# What a caller can be refused with. Not UNKNOWN, INTERNAL, UNAVAILABLE and DEADLINE_EXCEEDED: those would be ours.
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
# Fields that are answered with, in a message that is also sent; and what is judged one by one, never a whole call by it
# (RecordUsage quarantines, AppendLogs drops).
UNREAD = re.compile(
    r"(key|account)\.(create_time|revoke_time|public_prefix)|account\.name|CreateKey key\.key_id|"
    r"CreateOwnKey key\.(key_id|account_id)|Update(Own)?Key key\.account_id|RecordUsage records\[0\]\..*|"
    r"AppendLogs (session|logs\[0\])\..*"
)
LEAKS = re.compile(r"Traceback|Error\b|sqlalchemy|sqlite3|asyncpg|\bSELECT\b|\bINSERT\b", re.IGNORECASE)
# It remembers what was to be deleted and is not there, should it still come (the contract).
NOTED_THOUGH_REFUSED = {"DeleteLog"}
TRIES = 3


class Answer(NamedTuple):
    """How a call ended; `fields` are those that are named as wrong."""

    code: grpc.StatusCode
    fields: tuple[str, ...] = ()


class Plant(NamedTuple):
    """A running service, a good request for each of its methods, and its database."""

    port: int
    channel: grpc.aio.Channel
    good: Mapping[str, Good]
    database: Database


async def require_nothing_written(plant: Plant, method: MethodDescriptor, refused: bytes) -> None:
    """Fails if a call that is refused writes all the same.

    On SQLite alone, which tells at once whether anything was written; the code is the same on both.
    """
    if method.name in NOTED_THOUGH_REFUSED or not plant.database.is_sqlite:
        return
    for _ in range(TRIES):  # others may write at the same time: how lately keys were used, for one
        before = plant.database.data_version()
        answer = await ask(plant, method, refused)
        assert answer.code is not grpc.StatusCode.OK, "it is refused, and then it is not"
        if plant.database.data_version() == before:
            return
    pytest.fail(f"{method.name} writes though it refuses: {refused!r:.200}")


@pytest.fixture(params=list(PLANTS))
async def plant(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Plant]:
    async with opened(request.param, database_url) as running:
        yield running


@asynccontextmanager
async def opened(name: str, url: str) -> AsyncIterator[Plant]:
    async with (
        PLANTS[name](url) as (port, good),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        Database(open_engine(url)) as database,
    ):
        yield Plant(port, channel, good, database)


async def ask(plant: Plant, method: MethodDescriptor, content: bytes) -> Answer:
    """Sends bytes; sees to it that a refusal is one, and says which fields are wrong."""
    path, request_id = f"/{method.containing_service.full_name}/{method.name}", "a request that is refused"
    metadata = ((REQUEST_ID_KEY, request_id),)
    try:
        if method.server_streaming:
            streaming: Any = plant.channel.unary_stream(path)  # bytes in, bytes out
            stream = streaming(content, timeout=CALL_TIMEOUT_S, metadata=metadata)
            assert await stream.read() is not grpc.aio.EOF
            stream.cancel()
        else:
            calling: Any = plant.channel.unary_unary(path)
            await calling(content, timeout=CALL_TIMEOUT_S, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        refused = error
    else:
        return Answer(grpc.StatusCode.OK)
    assert refused.code() in REFUSALS, refused
    return Answer(refused.code(), _fields_of_refusal(refused, request_id, method.input_type))


def _fields_of_refusal(error: grpc.aio.AioRpcError, request_id: str, asked: Descriptor) -> tuple[str, ...]:
    status = rpc_status.from_call(error)
    assert status is not None
    details: dict[str, Any] = {}
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])
        detail = details[kind.DESCRIPTOR.name] = kind()
        assert packed.Unpack(detail)
    assert re.fullmatch(r"[A-Z][A-Z_]+", details["ErrorInfo"].reason)
    assert details["ErrorInfo"].domain == ERROR_DOMAIN
    assert details["RequestInfo"].request_id == request_id
    assert len(status.message) > 10, "it says what to do"
    assert not LEAKS.search(status.message.replace("'; DROP TABLE", "")), status.message
    if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
        assert "BadRequest" not in details
        return ()
    violations = details["BadRequest"].field_violations
    assert violations
    for each in violations:
        assert each.description
        assert _exists(each.field, asked), each.field
    return tuple(each.field for each in violations)


def _exists(path: str, message: Descriptor | None) -> bool:
    """Whether a field named as wrong is one; "request" is the whole, where it was no message."""
    if path == "request":
        return True
    for name in re.sub(r"\[\d+\]", "", path).split("."):
        if message is None:
            return False
        if name in message.oneofs_by_name:
            return True
        if name not in message.fields_by_name:
            return False
        message = message.fields_by_name[name].message_type
    return True


def methods(plant: Plant) -> list[MethodDescriptor]:
    return [descriptor_pool.Default().FindMethodByName(name) for name in plant.good]


async def test_every_method_that_a_server_offers_is_asked(plant: Plant) -> None:
    """So that one that is new cannot be left out of the tests below."""

    def offered() -> set[str]:
        with grpc.insecure_channel(f"127.0.0.1:{plant.port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            pool = DescriptorPool(database)
            services = [pool.FindServiceByName(name) for name in database.get_services() if "tollgate" in name]
            return {method.full_name for service in services for method in service.methods}

    assert await asyncio.to_thread(offered) == set(plant.good)


@pytest.mark.proof
async def test_a_field_that_is_wrong_is_refused_by_its_name_and_changes_nothing(plant: Plant) -> None:
    for method in methods(plant):
        good = plant.good[method.full_name]
        assert (await ask(plant, method, (await good()).SerializeToString())).code is grpc.StatusCode.OK, method.name
        for change in changes(await good()):
            message = await good()
            change.apply(message)
            answer = await ask(plant, method, message.SerializeToString())
            assert _is_right(answer, change, method.name), f"{method.name} {change}: {answer}"
            if answer.code is not grpc.StatusCode.OK:
                await require_nothing_written(plant, method, message.SerializeToString())


def _is_right(answer: Answer, change: Change, method: str) -> bool:
    if not change.wrong or UNREAD.fullmatch(f"{method} {change.path}") or UNREAD.fullmatch(change.path):
        return True
    if answer.code is grpc.StatusCode.INVALID_ARGUMENT:
        return all(re.sub(r"\[\d+\]", "", each).startswith(_plain(change.path)) for each in answer.fields)
    # An id that cannot be is one that is not there.
    return answer.code is not grpc.StatusCode.OK and change.path.endswith("_id")


def _plain(path: str) -> str:
    return path.replace("[0]", "").removesuffix(".paths")


@pytest.mark.proof
async def test_bytes_that_are_no_message_are_refused_and_change_nothing(plant: Plant) -> None:
    for method in methods(plant):
        good = await plant.good[method.full_name]()
        undecodable = 0
        for content in scrambled(good, zlib.crc32(method.full_name.encode()), SCRAMBLED_PER_METHOD):
            answer = await ask(plant, method, content)
            undecodable += answer.fields == ("request",)
            if answer.code is not grpc.StatusCode.OK:
                await require_nothing_written(plant, method, content)
        assert undecodable >= 3
