"""Writes by request_id: what is sent again, at once or later, happens once. A deadline that passes ends its work."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from sqlalchemy import text

from chassis import client
from chassis.database import Database, open_engine
from chassis.faults import DeadlineExceeded
from protos.client import CallFailed, call
from protos.usage.v1 import usage_pb2 as pb
from tests.harness.eventually import eventually
from tests.harness.plants import auth_plant, catalog_plant
from tests.harness.usage_plant import usage_plant
from tests.harness.usage_service import new_id, usage_service

CALL_TIMEOUT_S = 30.0
PLANTS: dict[str, Any] = {"auth": auth_plant, "catalog": catalog_plant, "usage": usage_plant}
# Services whose every request_id says "this write"; elsewhere it names a customer's request.
WRITERS = {"AuthAdminService", "KeyManagementService", "CatalogAdminService", "UsageAdminService"}


@pytest.mark.parametrize("name", list(PLANTS))
async def test_every_write_happens_once_however_often_it_is_sent_and_its_id_is_for_no_other(
    name: str, database_url: str
) -> None:
    async with PLANTS[name](database_url) as (port, good), client.channel(f"127.0.0.1:{port}") as channel:
        writes = [method for method in map(_method, good) if _is_write(method)]
        assert writes
        for method in writes:
            ask = _caller(channel, method)
            request = await good[method.full_name]()
            at_once = await asyncio.gather(*(ask(request) for _ in range(3)))
            later = await ask(request)
            secrets = [answer.secret for answer in at_once if getattr(answer, "secret", "")]
            assert len(secrets) <= 1, "a secret is shown once"
            assert all(_without_secret(answer) == later for answer in at_once), method.name

            other = await good[method.full_name]()
            other.request_id = request.request_id
            with pytest.raises(CallFailed) as refused:
                await ask(_differing(other, request))
            assert refused.value.code is grpc.StatusCode.ALREADY_EXISTS, method.name
            assert refused.value.reason == "REQUEST_ID_REUSED"


def _method(full_name: str) -> MethodDescriptor:
    return descriptor_pool.Default().FindMethodByName(full_name)


def _is_write(method: MethodDescriptor) -> bool:
    return method.containing_service.name in WRITERS and "request_id" in method.input_type.fields_by_name


def _caller(channel: grpc.aio.Channel, method: MethodDescriptor) -> Callable[[Message], Any]:
    multi_callable: Any = channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    return lambda request: call(multi_callable, request, timeout_s=CALL_TIMEOUT_S)


def _without_secret(answer: Message) -> Message:
    copied = type(answer)()
    copied.CopyFrom(answer)
    if "secret" in copied.DESCRIPTOR.fields_by_name:
        copied.ClearField("secret")
    return copied


def _differing(other: Any, request: Message) -> Message:
    """A good request that is another one than `request`, though its request_id is the same."""
    fields = other.DESCRIPTOR.fields_by_name
    if other != request:
        pass
    elif "key" in fields:
        other.key.name += "!"
    elif "document" in fields:
        other.document += "\n"
    else:
        amount = next(name for name in ("amount_nanousd", "grace_nanousd") if name in fields)
        setattr(other, amount, getattr(other, amount) + 2)
    assert other != request
    return other  # type: ignore[no-any-return]  # any message with a request_id


async def test_a_deadline_that_passes_ends_the_work_in_the_database_and_a_repeat_is_safe(
    postgres_url_factory: Callable[[], str],
) -> None:
    url = postgres_url_factory()
    async with usage_service(url) as usage, Database(open_engine(url)) as another:
        await usage.credit("acme", 1000)
        grant = pb.GrantCreditRequest(request_id=new_id(), account_id="acme", amount_nanousd=5)

        async def waiting() -> int:
            rows = await usage.rows(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return int(rows[0][0])

        async with another.engine.connect() as locking:
            await locking.execute(text("SELECT 1 FROM account WHERE account_id = 'acme' FOR UPDATE"))
            late = asyncio.create_task(client.call(usage.admin.GrantCredit, grant, timeout_s=1.5))
            await eventually(waiting)  # it has begun, and waits for us
            with pytest.raises(DeadlineExceeded):
                await late

            async def is_over() -> bool:
                return not await waiting()

            await eventually(is_over)  # nobody waits in the database for an answer that nobody waits for
            await locking.rollback()
        assert (await usage.balance("acme")).posted_nanousd == 1000
        for _ in range(2):
            await usage.call(usage.admin.GrantCredit, grant)
        assert (await usage.balance("acme")).posted_nanousd == 1005
