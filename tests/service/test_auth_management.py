"""auth_svc: what customers do with their own keys, over gRPC, on both engines."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.faults import (
    FailedPrecondition,
    Fault,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from protos.auth.v1 import auth_pb2 as pb
from tests.harness.auth_service import AuthService, ShiftedClock, auth_service, new_id

NO_KEY = "key_" + "0" * 22
BOTH = [pb.SCOPE_INFERENCE, pb.SCOPE_MANAGEMENT]


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def auth(database_url: str, clock: ShiftedClock) -> AsyncIterator[AuthService]:
    async with auth_service(database_url, clock=clock, keys_per_account_max=5, log_retention_days_max=30) as service:
        yield service


async def manager(auth: AuthService, account: pb.Account | None = None, **terms: Any) -> pb.Key:
    """A key with the management scope; of an account of its own, unless one is given."""
    made = await auth.create_key(
        account or await auth.create_account(), **{"scopes": [pb.SCOPE_MANAGEMENT], "name": "manager", **terms}
    )
    return made.key


async def create(auth: AuthService, by: pb.Key, **terms: Any) -> pb.CreateOwnKeyResponse:
    key = pb.Key(**{"name": "a key", "scopes": [pb.SCOPE_INFERENCE], **terms})
    request = pb.CreateOwnKeyRequest(request_id=new_id(), manager_key_id=by.key_id, key=key)
    response: pb.CreateOwnKeyResponse = await auth.call(auth.own.CreateOwnKey, request)
    return response


async def update(auth: AuthService, by: pb.Key, key_id: str, paths: Sequence[str], **terms: Any) -> pb.Key:
    key = pb.Key(key_id=key_id, **terms)
    request = pb.UpdateOwnKeyRequest(request_id=new_id(), manager_key_id=by.key_id, key=key)
    request.update_mask.paths.extend(paths)
    response: pb.UpdateOwnKeyResponse = await auth.call(auth.own.UpdateOwnKey, request)
    return response.key


async def rotate(auth: AuthService, by: pb.Key, key_id: str, overlap_s: int, **values: Any) -> pb.RotateOwnKeyResponse:
    request = pb.RotateOwnKeyRequest(
        request_id=new_id(), manager_key_id=by.key_id, key_id=key_id, overlap=Duration(seconds=overlap_s), **values
    )
    response: pb.RotateOwnKeyResponse = await auth.call(auth.own.RotateOwnKey, request)
    return response


async def revoke(auth: AuthService, by: pb.Key, key_id: str) -> pb.Key:
    request = pb.RevokeOwnKeyRequest(request_id=new_id(), manager_key_id=by.key_id, key_id=key_id)
    response: pb.RevokeOwnKeyResponse = await auth.call(auth.own.RevokeOwnKey, request)
    return response.key


async def listed(auth: AuthService, by: pb.Key, **values: Any) -> pb.ListOwnKeysResponse:
    request = pb.ListOwnKeysRequest(manager_key_id=by.key_id, **values)
    response: pb.ListOwnKeysResponse = await auth.call(auth.own.ListOwnKeys, request)
    return response


async def every_call(auth: AuthService, by: str, key_id: str) -> list[tuple[Any, Any]]:
    """Each call of the service in one's name, about one key."""
    write: dict[str, Any] = {"request_id": new_id(), "manager_key_id": by}
    key = pb.Key(key_id=key_id, name="n", scopes=[pb.SCOPE_INFERENCE])
    update_request = pb.UpdateOwnKeyRequest(**{**write, "request_id": new_id()}, key=key)
    update_request.update_mask.paths.append("name")
    return [
        (auth.own.GetOwnKey, pb.GetOwnKeyRequest(manager_key_id=by, key_id=key_id)),
        (auth.own.UpdateOwnKey, update_request),
        (auth.own.RotateOwnKey, pb.RotateOwnKeyRequest(**{**write, "request_id": new_id()}, key_id=key_id)),
        (auth.own.RevokeOwnKey, pb.RevokeOwnKeyRequest(**{**write, "request_id": new_id()}, key_id=key_id)),
        (auth.own.ListOwnKeys, pb.ListOwnKeysRequest(manager_key_id=by)),
        (auth.own.CreateOwnKey, pb.CreateOwnKeyRequest(**write, key=key)),
    ]


async def reason(call: Any, expected: type[Fault]) -> str:
    with pytest.raises(expected) as caught:
        await call
    return caught.value.reason


async def test_a_manager_makes_reads_changes_and_revokes_keys_of_its_account(auth: AuthService) -> None:
    by = await manager(auth)
    made = await create(auth, by, name="laptop", allowed_models=["a/b"], log_inputs=True, log_retention_days=30)
    assert made.key.account_id == by.account_id
    assert (await auth.authenticate(made.secret)).grant.key_id == made.key.key_id
    found = await auth.call(auth.own.GetOwnKey, pb.GetOwnKeyRequest(manager_key_id=by.key_id, key_id=made.key.key_id))
    assert found.key == made.key
    changed = await update(auth, by, made.key.key_id, ["name", "log_inputs"], name="desktop")
    assert (changed.name, changed.log_inputs, list(changed.allowed_models)) == ("desktop", False, ["a/b"])
    assert (await revoke(auth, by, made.key.key_id)).HasField("revoke_time")
    assert (await revoke(auth, by, made.key.key_id)).HasField("revoke_time")
    await reason(auth.authenticate(made.secret), NotFound)
    assert await reason(update(auth, by, made.key.key_id, ["name"], name="n"), FailedPrecondition) == "KEY_REVOKED"


async def test_a_repeat_of_a_creation_makes_no_second_key_and_shows_no_secret(auth: AuthService) -> None:
    by = await manager(auth)
    key = pb.Key(name="k", scopes=BOTH)
    request = pb.CreateOwnKeyRequest(request_id=new_id(), manager_key_id=by.key_id, key=key)
    answers = [await auth.call(auth.own.CreateOwnKey, request) for _ in range(2)]
    assert answers[0].key == answers[1].key
    assert [bool(answer.secret) for answer in answers] == [True, False]


async def test_keys_are_listed_newest_first_without_gap_or_repeat(auth: AuthService) -> None:
    by = await manager(auth)
    made = [(await create(auth, by)).key.key_id for _ in range(4)]
    await revoke(auth, by, made[1])
    ids: list[str] = []
    more = True
    while more:
        page = await listed(auth, by, page_size=2, after_key_id=ids[-1] if ids else "")
        ids += [key.key_id for key in page.keys]
        more = page.has_more
    assert ids == [made[3], made[2], made[0], by.key_id]
    everything = await listed(auth, by, include_revoked=True)
    assert [key.key_id for key in everything.keys] == [*reversed(made), by.key_id]
    assert not everything.has_more


async def test_a_cursor_of_another_account_or_of_nobody_is_refused(auth: AuthService) -> None:
    by, other = await manager(auth), await manager(auth)
    for cursor in (other.key_id, NO_KEY, "nonsense", "key_\0"):
        assert await reason(listed(auth, by, after_key_id=cursor), InvalidArgument) == "INVALID_FIELD"


async def test_another_accounts_key_is_as_if_it_did_not_exist(auth: AuthService) -> None:
    by, other = await manager(auth), await manager(auth)
    theirs = (await create(auth, other)).key
    said = set()
    for key_id in (theirs.key_id, other.key_id, NO_KEY, "nonsense"):
        for method, request in (await every_call(auth, by.key_id, key_id))[:4]:
            with pytest.raises(NotFound) as caught:
                await auth.call(method, request)
            said.add((caught.value.reason, caught.value.message))
    assert len(said) == 1
    assert {key.key_id for key in (await listed(auth, by)).keys} == {by.key_id}
    found = await auth.call(auth.own.GetOwnKey, pb.GetOwnKeyRequest(manager_key_id=other.key_id, key_id=theirs.key_id))
    assert found.key == theirs


async def test_who_may_not_manage_is_refused_everywhere_with_the_reason(auth: AuthService, clock: ShiftedClock) -> None:
    account = await auth.create_account()
    await manager(auth, account)
    inference = (await auth.create_key(account)).key
    revoked = await manager(auth, account)
    await auth.revoke_key(revoked.key_id)
    soon = Timestamp()
    soon.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    expired = await manager(auth, account, expire_time=soon)
    suspended_account = await auth.create_account()
    suspended = await manager(auth, suspended_account)
    await auth.suspend(suspended_account)
    clock.shift = timedelta(hours=2)
    for key_id, expected in (
        (inference.key_id, "MANAGER_OUT_OF_SCOPE"),
        (revoked.key_id, "MANAGER_NOT_WORKING"),
        (expired.key_id, "MANAGER_NOT_WORKING"),
        (NO_KEY, "MANAGER_NOT_WORKING"),
        ("", "MANAGER_NOT_WORKING"),
        (suspended.key_id, "MANAGER_SUSPENDED"),
    ):
        for method, request in await every_call(auth, key_id, inference.key_id):
            assert await reason(auth.call(method, request), PermissionDenied) == expected


async def test_the_last_management_key_stays(auth: AuthService, clock: ShiftedClock) -> None:
    by = await manager(auth)
    await create(auth, by)
    soon = Timestamp()
    soon.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    second = (await create(auth, by, scopes=BOTH, expire_time=soon)).key
    assert not (await update(auth, by, second.key_id, ["scopes"], scopes=[pb.SCOPE_INFERENCE])).HasField("revoke_time")
    only_infers = update(auth, by, by.key_id, ["scopes"], scopes=[pb.SCOPE_INFERENCE])
    assert await reason(only_infers, FailedPrecondition) == "LAST_MANAGEMENT_KEY"
    assert await reason(revoke(auth, by, by.key_id), FailedPrecondition) == "LAST_MANAGEMENT_KEY"
    await update(auth, by, second.key_id, ["scopes"], scopes=BOTH)
    clock.shift = timedelta(hours=2)  # the second has expired: it would let nobody in
    assert await reason(revoke(auth, by, by.key_id), FailedPrecondition) == "LAST_MANAGEMENT_KEY"
    third = (await create(auth, by, scopes=[pb.SCOPE_MANAGEMENT])).key
    await revoke(auth, by, by.key_id)
    assert await reason(revoke(auth, third, third.key_id), FailedPrecondition) == "LAST_MANAGEMENT_KEY"


async def test_the_last_management_key_cannot_be_made_to_expire_within_a_day(auth: AuthService) -> None:
    def after(**span: int) -> Timestamp:
        moment = Timestamp()
        moment.FromDatetime(datetime.now(UTC) + timedelta(**span))
        return moment

    by = await manager(auth)
    await create(auth, by)
    last = "LAST_MANAGEMENT_KEY"
    assert (
        await reason(update(auth, by, by.key_id, ["expire_time"], expire_time=after(hours=23)), FailedPrecondition)
        == last
    )
    for overlap_s in (0, 60):
        gone_soon = rotate(auth, by, by.key_id, overlap_s, expire_time=after(minutes=5))
        assert await reason(gone_soon, FailedPrecondition) == last
    second = (await create(auth, by, scopes=BOTH, expire_time=after(hours=1))).key
    assert await reason(revoke(auth, by, by.key_id), FailedPrecondition) == last
    # One that ends by itself may be replaced by one that lives no longer.
    await update(auth, by, second.key_id, ["expire_time"], expire_time=after(hours=2))
    await update(auth, by, by.key_id, ["expire_time"], expire_time=after(hours=25))
    assert (await rotate(auth, by, by.key_id, 0)).rotated_key.HasField("revoke_time")


async def test_of_two_management_keys_that_revoke_each_other_at_once_one_stays(auth: AuthService) -> None:
    for _ in range(5):
        first = await manager(auth)
        second = (await create(auth, first, scopes=[pb.SCOPE_MANAGEMENT])).key
        answers = await asyncio.gather(
            revoke(auth, first, second.key_id), revoke(auth, second, first.key_id), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, Fault)]
        assert [fault.reason for fault in refused] == ["MANAGER_NOT_WORKING"]


async def test_a_rotated_key_works_for_its_overlap_beside_the_new_one(auth: AuthService, clock: ShiftedClock) -> None:
    by = await manager(auth)
    old = await create(auth, by, name="rotated", allowed_models=["a/b"], log_outputs=True)
    answer = await rotate(auth, by, old.key.key_id, 3600)
    assert answer.key.key_id != old.key.key_id
    assert (answer.key.name, list(answer.key.allowed_models), answer.key.log_outputs) == ("rotated", ["a/b"], True)
    assert not answer.key.HasField("expire_time")
    assert answer.rotated_key.HasField("expire_time")
    for secret in (old.secret, answer.secret):
        await auth.authenticate(secret)
    clock.shift = timedelta(seconds=3601)
    await auth.authenticate(answer.secret)
    await reason(auth.authenticate(old.secret), NotFound)
    assert await reason(rotate(auth, by, old.key.key_id, 1), FailedPrecondition) == "KEY_EXPIRED"
    at_once = await rotate(auth, by, answer.key.key_id, 0)
    assert at_once.rotated_key.HasField("revoke_time")
    await reason(auth.authenticate(answer.secret), NotFound)
    await auth.authenticate(at_once.secret)
    assert await reason(rotate(auth, by, answer.key.key_id, 0), FailedPrecondition) == "KEY_REVOKED"


async def test_an_overlap_never_lengthens_a_keys_life(auth: AuthService) -> None:
    by = await manager(auth)
    soon, later = Timestamp(), Timestamp()
    soon.FromDatetime(datetime.now(UTC) + timedelta(minutes=10))
    later.FromDatetime(datetime.now(UTC) + timedelta(days=10))
    old = (await create(auth, by, expire_time=soon)).key
    answer = await rotate(auth, by, old.key_id, 86_400, expire_time=later)
    assert (answer.rotated_key.expire_time, answer.key.expire_time) == (soon, later)


async def test_the_last_management_key_can_be_rotated_by_itself(auth: AuthService) -> None:
    by = await manager(auth)
    answer = await rotate(auth, by, by.key_id, 0)
    assert await reason(listed(auth, by), PermissionDenied) == "MANAGER_NOT_WORKING"
    assert [key.key_id for key in (await listed(auth, answer.key)).keys] == [answer.key.key_id]


async def test_an_account_makes_no_more_keys_than_it_may_have(auth: AuthService) -> None:
    by = await manager(auth)
    made = [(await create(auth, by)).key.key_id for _ in range(4)]
    assert await reason(create(auth, by), ResourceExhausted) == "TOO_MANY_KEYS"
    assert await reason(rotate(auth, by, made[0], 60), ResourceExhausted) == "TOO_MANY_KEYS"
    await rotate(auth, by, made[0], 0)
    await revoke(auth, by, made[1])
    await create(auth, by)


BAD_TERMS: list[tuple[str, dict[str, Any]]] = [
    ("key.name", {"name": ""}),
    ("key.scopes", {"scopes": []}),
    ("key.allowed_models[1]", {"allowed_models": ["a", "a"]}),
    ("key.expire_time", {"expire_time": Timestamp(seconds=1)}),
    ("key.log_retention_days", {"log_retention_days": 31}),
    ("key.log_retention_days", {"log_retention_days": -1}),
]


@pytest.mark.parametrize(("field", "terms"), BAD_TERMS)
async def test_terms_that_cannot_be_are_refused_by_their_field(
    auth: AuthService, field: str, terms: dict[str, Any]
) -> None:
    by = await manager(auth)
    old = (await create(auth, by)).key
    path = field.partition(".")[2].partition("[")[0]
    for call in (create(auth, by, **terms), update(auth, by, old.key_id, [path], **terms)):
        with pytest.raises(InvalidArgument) as caught:
            await call
        assert [violation.field for violation in caught.value.violations] == [field]


async def test_a_rotation_out_of_its_bounds_is_refused_by_its_field(auth: AuthService) -> None:
    by = await manager(auth)
    bad: list[tuple[str, dict[str, Any]]] = [
        ("overlap", {"overlap": Duration(seconds=-1)}),
        ("overlap", {"overlap": Duration(seconds=30 * 86_400 + 1)}),
        ("expire_time", {"expire_time": Timestamp(seconds=2**40)}),
        ("key.expire_time", {"expire_time": Timestamp(seconds=1)}),
    ]
    for field, values in bad:
        request = pb.RotateOwnKeyRequest(request_id=new_id(), manager_key_id=by.key_id, key_id=by.key_id, **values)
        with pytest.raises(InvalidArgument) as caught:
            await auth.call(auth.own.RotateOwnKey, request)
        assert [violation.field for violation in caught.value.violations] == [field]
