"""auth_svc: what becomes of somebody who presents a key, on both engines."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import secret_token
from chassis.faults import InvalidArgument, NotFound
from protos.auth.v1 import auth_pb2 as pb
from tests.harness.auth_service import AuthService, ShiftedClock, auth_service


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def auth(database_url: str, clock: ShiftedClock) -> AsyncIterator[AuthService]:
    async with auth_service(database_url, clock=clock) as service:
        yield service


async def test_a_working_key_is_granted_all_that_an_edge_caches(auth: AuthService) -> None:
    account = await auth.create_account()
    expire_time = Timestamp()
    expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=1))
    made = await auth.create_key(
        account,
        scopes=[pb.SCOPE_INFERENCE, pb.SCOPE_MANAGEMENT],
        allowed_models=["a/b"],
        expire_time=expire_time,
        log_outputs=True,
        log_retention_days=7,
    )
    answer = await auth.authenticate(made.secret)
    assert answer.grant == pb.KeyGrant(
        key_id=made.key.key_id,
        account_id=account.account_id,
        account_state=pb.ACCOUNT_STATE_ACTIVE,
        scopes=[pb.SCOPE_INFERENCE, pb.SCOPE_MANAGEMENT],
        allowed_models=["a/b"],
        expire_time=expire_time,
        log_inputs=False,
        log_outputs=True,
        log_retention_days=7,
        public_prefix=made.secret[:11],
    )
    assert answer.revision > 0


async def test_unknown_revoked_and_expired_keys_are_told_the_same(auth: AuthService, clock: ShiftedClock) -> None:
    account = await auth.create_account()
    revoked = await auth.create_key(account)
    await auth.revoke_key(revoked.key.key_id)
    expire_time = Timestamp()
    expire_time.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    expired = await auth.create_key(account, expire_time=expire_time)
    await auth.authenticate(expired.secret)
    clock.shift = timedelta(hours=1)
    told = set()
    for secret in (revoked.secret, expired.secret, secret_token.make("tg_", bytes(24))):
        with pytest.raises(NotFound) as caught:
            await auth.authenticate(secret)
        told.add((caught.value.reason, caught.value.message, caught.value.violations))
    assert told == {("KEY_NOT_FOUND", "no working key has this hash", ())}


async def test_a_suspended_accounts_key_is_granted_with_that_state(auth: AuthService) -> None:
    account = await auth.create_account()
    made = await auth.create_key(account)
    before = await auth.authenticate(made.secret)
    await auth.suspend(account)
    after = await auth.authenticate(made.secret)
    assert after.grant.account_state == pb.ACCOUNT_STATE_SUSPENDED
    assert after.revision == before.revision + 1


@pytest.mark.parametrize("size", [0, 31, 33])
async def test_a_hash_of_the_wrong_length_is_refused(auth: AuthService, size: int) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await auth.call(auth.keys.Authenticate, pb.AuthenticateRequest(key_sha256=bytes(size)))
    assert [violation.field for violation in caught.value.violations] == ["key_sha256"]


async def test_the_stored_hash_itself_opens_nothing(auth: AuthService) -> None:
    # Who reads the database gets HMACs: presented as a hash, or as a secret, they are unknown.
    made = await auth.create_key(await auth.create_account())
    with pytest.raises(NotFound):
        await auth.authenticate(secret_token.digest(made.secret).hex())
