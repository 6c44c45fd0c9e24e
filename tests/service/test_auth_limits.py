"""auth_svc: limits of keys over gRPC, on both engines, and what edges are told when the operator's presets change."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from auth_svc.service import open_servicers
from chassis.database import Database, open_engine
from chassis.faults import FailedPrecondition, InvalidArgument
from chassis.lifetime import Lifetime
from protos.auth.v1 import auth_pb2 as pb
from tests.harness.auth_service import AuthService, auth_service, settings

DEVELOPER = pb.KeyLimits(tier="developer", requests_per_minute=60, tokens_per_minute=500_000, concurrent_requests=5)
TIERS: dict[str, Any] = {"trial": {"requests_per_minute": 3}}


@pytest.fixture
async def auth(database_url: str) -> AsyncIterator[AuthService]:
    async with auth_service(database_url) as service:
        yield service


async def test_a_presets_numbers_come_with_the_key_and_with_its_grant(auth: AuthService) -> None:
    made = await auth.create_key(await auth.create_account(), limits=pb.KeyLimits(tier="developer"))
    assert made.key.limits == DEVELOPER
    grant = (await auth.authenticate(made.secret)).grant
    assert grant.limits == DEVELOPER
    assert not grant.HasField("spend_limit")


async def test_limits_and_the_spend_limit_change_by_their_own_masks(auth: AuthService) -> None:
    limit = pb.SpendLimit(limit_nanousd=5_000_000_000, period=pb.SPEND_PERIOD_MONTH)
    made = await auth.create_key(await auth.create_account(), spend_limit=limit)
    assert not made.key.HasField("limits")
    key_id = made.key.key_id
    after = await auth.update_key(key_id, ["limits"], limits=pb.KeyLimits(tokens_per_minute=9))
    assert after.limits == pb.KeyLimits(tier="custom", tokens_per_minute=9)
    assert after.spend_limit == limit
    after = await auth.update_key(key_id, ["limits"], limits=DEVELOPER)  # as they were read
    assert after.limits == DEVELOPER
    after = await auth.update_key(key_id, ["limits", "spend_limit"])
    assert not after.HasField("limits")
    assert not after.HasField("spend_limit")
    grant = (await auth.authenticate(made.secret)).grant
    assert not grant.HasField("limits")
    assert not grant.HasField("spend_limit")


async def test_an_edge_is_told_when_a_limit_changes(auth: AuthService) -> None:
    made = await auth.create_key(await auth.create_account())
    before = (await auth.authenticate(made.secret)).revision
    await auth.update_key(made.key.key_id, ["limits"], limits=pb.KeyLimits(tier="production"))
    assert (await auth.authenticate(made.secret)).revision == before + 1


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"limits": pb.KeyLimits(tier="gold")}, "key.limits.tier"),
        ({"limits": pb.KeyLimits(requests_per_minute=-1)}, "key.limits.requests_per_minute"),
        ({"spend_limit": pb.SpendLimit(limit_nanousd=5)}, "key.spend_limit.period"),
        ({"spend_limit": pb.SpendLimit(period=pb.SPEND_PERIOD_DAY)}, "key.spend_limit.limit_nanousd"),
    ],
)
async def test_a_wrong_limit_is_named(auth: AuthService, wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await auth.create_key(await auth.create_account(), **wrong)
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_changed_presets_make_edges_forget_and_unchanged_ones_do_not(database_url: str) -> None:
    async with auth_service(database_url, tiers=TIERS) as first:
        made = await first.create_key(await first.create_account(), limits=pb.KeyLimits(tier="trial"))
        revision = (await first.authenticate(made.secret)).revision
    async with auth_service(database_url, tiers=TIERS) as same:
        assert (await same.authenticate(made.secret)).revision == revision
    async with (
        auth_service(database_url, tiers={"trial": {"requests_per_minute": 4}}) as changed,
        changed.watch(revision) as messages,
    ):
        assert (await anext(messages)).reset.revision == revision + 1
        answer = await changed.authenticate(made.secret)
        assert (answer.revision, answer.grant.limits.requests_per_minute) == (revision + 1, 4)


async def test_a_preset_that_keys_name_cannot_be_left_out(database_url: str) -> None:
    async with auth_service(database_url, tiers=TIERS) as first:
        await first.create_key(await first.create_account(), limits=pb.KeyLimits(tier="trial"))
    async with Database(open_engine(database_url)) as database:
        with pytest.raises(FailedPrecondition, match="trial") as caught:
            async with open_servicers(settings(database_url, tiers={}), database, Lifetime()):
                pass
    assert caught.value.reason == "TIER_MISSING"
