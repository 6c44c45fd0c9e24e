"""auth_svc: keys over gRPC, on both engines."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import secret_token
from chassis.faults import AlreadyExists, InvalidArgument, NotFound
from protos.auth.v1 import auth_pb2 as pb
from tests.harness.auth_service import AuthService, ShiftedClock, auth_service, new_id

NO_KEY, NO_ACCOUNT = "key_" + "0" * 22, "acct_" + "0" * 22


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def auth(database_url: str, clock: ShiftedClock) -> AsyncIterator[AuthService]:
    async with auth_service(database_url, clock=clock) as service:
        yield service


def moment(**from_now: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(datetime.now(UTC).replace(microsecond=123456) + timedelta(**from_now))
    return timestamp


async def test_a_new_key_is_as_it_was_asked_for_and_shows_its_secret_once(auth: AuthService) -> None:
    account = await auth.create_account()
    asked: dict[str, Any] = {
        "name": "the laptop",
        "scopes": [pb.SCOPE_MANAGEMENT, pb.SCOPE_INFERENCE, pb.SCOPE_INFERENCE],
        "allowed_models": ["z/last", "a/first:free"],
        "expire_time": moment(days=30),
        "log_inputs": True,
        "log_retention_days": 3650,
    }
    made = await auth.create_key(account, **asked)
    assert secret_token.well_formed(made.secret, "tg_")
    key = made.key
    assert key.key_id.startswith("key_")
    assert len(key.key_id) == 26
    assert key.account_id == account.account_id
    assert key.public_prefix == made.secret[:11]
    assert (key.name, list(key.allowed_models)) == ("the laptop", ["z/last", "a/first:free"])
    assert list(key.scopes) == [pb.SCOPE_INFERENCE, pb.SCOPE_MANAGEMENT]
    assert key.expire_time == asked["expire_time"]
    assert (key.log_inputs, key.log_outputs, key.log_retention_days) == (True, False, 3650)
    assert not key.HasField("revoke_time")
    found = await auth.call(auth.admin.GetKey, pb.GetKeyRequest(key_id=key.key_id))
    assert found.key == key


async def test_of_repeats_at_once_one_makes_the_key_and_one_shows_the_secret(auth: AuthService) -> None:
    account = await auth.create_account()
    request = pb.CreateKeyRequest(
        request_id=new_id(),
        key=pb.Key(account_id=account.account_id, name="k", scopes=[pb.SCOPE_INFERENCE], expire_time=moment(hours=1)),
    )
    answers = await asyncio.gather(*(auth.call(auth.admin.CreateKey, request) for _ in range(8)))
    assert len({answer.key.key_id for answer in answers}) == 1
    secrets = [answer.secret for answer in answers if answer.secret]
    assert len(secrets) == 1
    page = await auth.call(auth.admin.ListKeys, pb.ListKeysRequest(account_id=account.account_id))
    assert [key.key_id for key in page.keys] == [answers[0].key.key_id]
    assert (await auth.authenticate(secrets[0])).grant.key_id == answers[0].key.key_id


async def test_a_late_repeat_gets_its_first_answer_although_the_key_has_expired(
    auth: AuthService, clock: ShiftedClock
) -> None:
    account = await auth.create_account()
    key = pb.Key(account_id=account.account_id, name="k", scopes=[pb.SCOPE_INFERENCE], expire_time=moment(hours=1))
    request = pb.CreateKeyRequest(request_id=new_id(), key=key)
    first = await auth.call(auth.admin.CreateKey, request)
    clock.shift = timedelta(hours=2)
    repeat = await auth.call(auth.admin.CreateKey, request)
    assert repeat.key == first.key
    assert repeat.secret == ""


async def test_an_imported_secret_works_once_and_belongs_to_one_key(auth: AuthService) -> None:
    account = await auth.create_account()
    secret = secret_token.make("tg_", bytes(range(24)))
    key = pb.Key(account_id=account.account_id, name="k", scopes=[pb.SCOPE_INFERENCE])
    request = pb.CreateKeyRequest(request_id=new_id(), key=key, secret=secret)
    made = await auth.call(auth.admin.CreateKey, request)
    assert made.secret == secret
    assert (await auth.authenticate(secret)).grant.key_id == made.key.key_id
    repeat = await auth.call(auth.admin.CreateKey, request)
    assert (repeat.key, repeat.secret) == (made.key, "")
    request.secret = secret_token.make("tg_", bytes(24))
    with pytest.raises(AlreadyExists) as caught:
        await auth.call(auth.admin.CreateKey, request)
    assert caught.value.reason == "REQUEST_ID_REUSED"
    await auth.revoke_key(made.key.key_id)
    with pytest.raises(AlreadyExists) as caught:
        await auth.create_key(account, secret=secret)
    assert caught.value.reason == "SECRET_TAKEN"
    assert secret not in caught.value.message


async def test_of_many_who_import_one_secret_at_once_one_gets_it(auth: AuthService) -> None:
    account, secret = await auth.create_account(), secret_token.make("tg_", bytes(range(24)))
    answers = await asyncio.gather(*(auth.create_key(account, secret=secret) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(answer, pb.CreateKeyResponse) for answer in answers) == 1
    assert [answer.reason for answer in answers if isinstance(answer, AlreadyExists)] == ["SECRET_TAKEN"] * 5


async def test_an_update_changes_what_the_mask_names_and_nothing_else(auth: AuthService) -> None:
    account = await auth.create_account()
    made = await auth.create_key(account, expire_time=moment(days=1), allowed_models=["a"], log_outputs=True)
    key_id = made.key.key_id
    after = await auth.update_key(
        key_id, ["name", "scopes"], name="new", scopes=[pb.SCOPE_MANAGEMENT], allowed_models=["ignored"]
    )
    expected = pb.Key()
    expected.CopyFrom(made.key)
    expected.name = "new"
    expected.scopes[:] = [pb.SCOPE_MANAGEMENT]
    assert after == expected
    after = await auth.update_key(
        key_id, ["expire_time", "allowed_models", "log_outputs", "log_inputs"], log_inputs=True
    )
    assert not after.HasField("expire_time")
    assert list(after.allowed_models) == []
    assert (after.log_inputs, after.log_outputs) == (True, False)
    grant = (await auth.authenticate(made.secret)).grant
    assert list(grant.scopes) == [pb.SCOPE_MANAGEMENT]
    assert grant.log_inputs


async def test_a_revoked_key_stays_revoked_since_the_first_time(auth: AuthService, clock: ShiftedClock) -> None:
    made = await auth.create_key(await auth.create_account())
    first = await auth.revoke_key(made.key.key_id)
    assert first.HasField("revoke_time")
    clock.shift = timedelta(hours=1)
    assert await auth.revoke_key(made.key.key_id) == first


async def test_pages_of_an_accounts_keys_follow_creation_and_hold_revoked_ones(auth: AuthService) -> None:
    account, other = await auth.create_account(), await auth.create_account()
    made = [(await auth.create_key(account)).key.key_id for _ in range(5)]
    await auth.create_key(other)
    await auth.revoke_key(made[1])
    found, token = [], ""
    while True:
        request = pb.ListKeysRequest(account_id=account.account_id, page_size=2, page_token=token)
        page = await auth.call(auth.admin.ListKeys, request)
        found += [key.key_id for key in page.keys]
        token = page.next_page_token
        if not token:
            break
    assert found == made
    first = await auth.call(auth.admin.ListKeys, pb.ListKeysRequest(account_id=account.account_id, page_size=2))
    with pytest.raises(InvalidArgument, match="page_token"):
        await auth.call(
            auth.admin.ListKeys, pb.ListKeysRequest(account_id=other.account_id, page_token=first.next_page_token)
        )


async def test_what_does_not_exist_is_not_found(auth: AuthService) -> None:
    key = pb.Key(key_id=NO_KEY, account_id=NO_ACCOUNT, name="k", scopes=[pb.SCOPE_INFERENCE])
    for method, request, reason in (
        ("GetKey", pb.GetKeyRequest(key_id=NO_KEY), "KEY_NOT_FOUND"),
        ("GetKey", pb.GetKeyRequest(key_id="key_\0"), "KEY_NOT_FOUND"),
        ("RevokeKey", pb.RevokeKeyRequest(request_id=new_id(), key_id=NO_KEY), "KEY_NOT_FOUND"),
        (
            "UpdateKey",
            pb.UpdateKeyRequest(request_id=new_id(), key=key, update_mask=FieldMask(paths=["name"])),
            "KEY_NOT_FOUND",
        ),
        ("ListKeys", pb.ListKeysRequest(account_id=NO_ACCOUNT), "ACCOUNT_NOT_FOUND"),
        ("CreateKey", pb.CreateKeyRequest(request_id=new_id(), key=key), "ACCOUNT_NOT_FOUND"),
    ):
        with pytest.raises(NotFound) as caught:
            await auth.call(getattr(auth.admin, method), request)
        assert caught.value.reason == reason, method


async def test_a_wrong_field_is_named(auth: AuthService) -> None:
    account = await auth.create_account()

    def create(secret: str = "", **wrong: Any) -> tuple[str, Message]:
        key = pb.Key(account_id=account.account_id, **{"name": "k", "scopes": [pb.SCOPE_INFERENCE], **wrong})
        return "CreateKey", pb.CreateKeyRequest(request_id=new_id(), key=key, secret=secret)

    made = await auth.create_key(account)

    def update(*paths: str, **wrong: Any) -> tuple[str, Message]:
        key = pb.Key(key_id=made.key.key_id, **wrong)
        return "UpdateKey", pb.UpdateKeyRequest(request_id=new_id(), key=key, update_mask=FieldMask(paths=paths))

    for (method, request), field in (
        (create(name=""), "key.name"),
        (create(scopes=[]), "key.scopes"),
        (create(scopes=[pb.SCOPE_INFERENCE, pb.SCOPE_UNSPECIFIED]), "key.scopes[1]"),
        (create(scopes=[77]), "key.scopes[0]"),
        (create(allowed_models=["a", "b", "a"]), "key.allowed_models[2]"),
        (create(allowed_models=[""]), "key.allowed_models[0]"),
        (create(allowed_models=["x" * 201]), "key.allowed_models[0]"),
        (create(allowed_models=[f"m{n}" for n in range(1001)]), "key.allowed_models"),
        (create(expire_time=moment(seconds=-1)), "key.expire_time"),
        (create(expire_time=Timestamp(seconds=2**60)), "key.expire_time"),
        (create(log_retention_days=-1), "key.log_retention_days"),
        (create(log_retention_days=3651), "key.log_retention_days"),
        (create(secret="tg_" + "x" * 39), "secret"),
        (create(secret=made.secret[:-1]), "secret"),
        (update(), "update_mask"),
        (update("secret"), "update_mask"),
        (update("name", "revoke_time"), "update_mask"),
        (update("scopes"), "key.scopes"),
        (update("expire_time", expire_time=moment(hours=-1)), "key.expire_time"),
        (update("log_retention_days", log_retention_days=4000), "key.log_retention_days"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await auth.call(getattr(auth.admin, method), request)
        assert [violation.field for violation in caught.value.violations] == [field], request
        assert made.secret[11:-1] not in caught.value.message
    found = await auth.call(auth.admin.GetKey, pb.GetKeyRequest(key_id=made.key.key_id))
    assert found.key == made.key
