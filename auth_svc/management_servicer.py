"""The wire, for customers with a management key: every call is judged by that key, under a lock on its account."""
# ruff: noqa: N802 - the contract names the methods

from datetime import datetime
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from auth_svc import convert, ids, keys, management, store
from auth_svc.key_writing import KeyWriter
from auth_svc.keys import Key
from auth_svc.limits import Tiers
from chassis.clock import Clock
from chassis.database import Database
from chassis.faults import InvalidArgument, NotFound
from chassis.pages import MAX_PAGE_SIZE, page_size
from protos.auth.v1 import auth_pb2 as pb
from protos.auth.v1 import auth_pb2_grpc as rpc


class KeyManagementServicer(rpc.KeyManagementServiceServicer):
    """See the contract for what each call promises.

    Writes lock the account's row first: two management keys that revoke each other at once are judged one by one, so
    that one of them stays.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        writer: KeyWriter,
        tiers: Tiers,
        *,
        keys_max: int,
        retention_days_max: int,
    ) -> None:
        self._database, self._clock, self._writer, self._tiers = database, clock, writer, tiers
        self._keys_max, self._retention_days_max = keys_max, retention_days_max

    async def CreateOwnKey(self, request: pb.CreateOwnKeyRequest, context: Any) -> pb.CreateOwnKeyResponse:
        terms = keys.validated(convert.key_terms_from_pb(request.key), self._tiers)
        management.require_retention_within(terms, self._retention_days_max)
        now = self._clock.now()

        async def act(session: AsyncSession) -> pb.CreateOwnKeyResponse:
            manager = await self._manager(session, request.manager_key_id, now, for_update=True)
            keys.require_future(terms.expire_time, now)
            management.require_room(await store.count_keys(session, manager.account_id), self._keys_max)
            new = self._writer.drawn(manager.account_id, terms, now)
            await store.insert_key(session, new.key, new.secret_hmac)
            return pb.CreateOwnKeyResponse(key=convert.key_to_pb(new.key, self._tiers), secret=new.secret)

        return await self._writer.write_once(
            request, pb.CreateOwnKeyResponse, act, keep=lambda response: pb.CreateOwnKeyResponse(key=response.key)
        )

    async def GetOwnKey(self, request: pb.GetOwnKeyRequest, context: Any) -> pb.GetOwnKeyResponse:
        ids.require_given("key_id", request.key_id)
        async with self._database.read() as session:
            manager = await self._manager(session, request.manager_key_id, self._clock.now())
            found = await _own_key(session, request.key_id, manager)
        return pb.GetOwnKeyResponse(key=convert.key_to_pb(found, self._tiers))

    async def ListOwnKeys(self, request: pb.ListOwnKeysRequest, context: Any) -> pb.ListOwnKeysResponse:
        size = page_size(request.page_size)
        async with self._database.read() as session:
            manager = await self._manager(session, request.manager_key_id, self._clock.now())
            if request.after_key_id:
                try:
                    await _own_key(session, request.after_key_id, manager)
                except NotFound:
                    raise InvalidArgument("after_key_id", "no key of this account: give a page's last id") from None
            found = await store.keys_before(
                session, manager.account_id, request.after_key_id, size + 1, revoked_too=request.include_revoked
            )
        return pb.ListOwnKeysResponse(
            keys=[convert.key_to_pb(each, self._tiers) for each in found[:size]], has_more=len(found) > size
        )

    async def UpdateOwnKey(self, request: pb.UpdateOwnKeyRequest, context: Any) -> pb.UpdateOwnKeyResponse:
        changes = convert.key_changes_from_pb(request.key, request.update_mask.paths)
        ids.require_given("key.key_id", request.key.key_id)
        now = self._clock.now()

        async def act(session: AsyncSession) -> pb.UpdateOwnKeyResponse:
            manager = await self._manager(session, request.manager_key_id, now, for_update=True)
            before = await _own_key(session, request.key.key_id, manager, for_update=True)
            management.require_not_revoked(before)
            after = keys.updated(before, changes, now, self._tiers)
            if "log_retention_days" in changes:  # the operator may have lowered it since
                management.require_retention_within(after.terms, self._retention_days_max)
            await self._require_a_manager_left(session, before, [after], now)
            await self._writer.save_key(session, before, after)
            return pb.UpdateOwnKeyResponse(key=convert.key_to_pb(after, self._tiers))

        return await self._writer.write_once(request, pb.UpdateOwnKeyResponse, act)

    async def RotateOwnKey(self, request: pb.RotateOwnKeyRequest, context: Any) -> pb.RotateOwnKeyResponse:
        ids.require_given("key_id", request.key_id)
        overlap = convert.overlap_from_pb(request)
        new_expire_time = convert.expire_time_from_pb(request, "expire_time")
        now = self._clock.now()

        async def act(session: AsyncSession) -> pb.RotateOwnKeyResponse:
            manager = await self._manager(session, request.manager_key_id, now, for_update=True)
            before = await _own_key(session, request.key_id, manager, for_update=True)
            after, terms = management.rotated(before, overlap, new_expire_time, now)
            if after.revoke_time is None:  # else one goes and one comes
                management.require_room(await store.count_keys(session, manager.account_id), self._keys_max)
            new = self._writer.drawn(manager.account_id, terms, now)
            await self._require_a_manager_left(session, before, [after, new.key], now)
            await store.insert_key(session, new.key, new.secret_hmac)
            await self._writer.save_key(session, before, after)
            return pb.RotateOwnKeyResponse(
                key=convert.key_to_pb(new.key, self._tiers),
                secret=new.secret,
                rotated_key=convert.key_to_pb(after, self._tiers),
            )

        return await self._writer.write_once(
            request,
            pb.RotateOwnKeyResponse,
            act,
            keep=lambda response: pb.RotateOwnKeyResponse(key=response.key, rotated_key=response.rotated_key),
        )

    async def RevokeOwnKey(self, request: pb.RevokeOwnKeyRequest, context: Any) -> pb.RevokeOwnKeyResponse:
        ids.require_given("key_id", request.key_id)
        now = self._clock.now()

        async def act(session: AsyncSession) -> pb.RevokeOwnKeyResponse:
            manager = await self._manager(session, request.manager_key_id, now, for_update=True)
            before = await _own_key(session, request.key_id, manager, for_update=True)
            after = keys.revoked(before, now)
            await self._require_a_manager_left(session, before, [after], now)
            await self._writer.save_key(session, before, after)
            return pb.RevokeOwnKeyResponse(key=convert.key_to_pb(after, self._tiers))

        return await self._writer.write_once(request, pb.RevokeOwnKeyResponse, act)

    async def _manager(self, session: AsyncSession, key_id: str, now: datetime, *, for_update: bool = False) -> Key:
        found = await store.key(session, key_id) if ids.is_key_id(key_id) else None
        account = None
        if found is not None:
            account = await store.account(session, found.account_id, for_update=for_update)
            if for_update:  # it may have been revoked while this waited for the account
                found = await store.key(session, key_id, for_update=True)
        return management.require_manager(found, account.state if account is not None else None, now)

    async def _require_a_manager_left(
        self, session: AsyncSession, before: Key, changed: list[Key], now: datetime
    ) -> None:
        others = await store.keys_before(session, before.account_id, "", MAX_PAGE_SIZE, revoked_too=False)
        left = [*changed, *(each for each in others if each.key_id != before.key_id)]
        management.require_a_manager_left(before, left, now)


async def _own_key(session: AsyncSession, key_id: str, manager: Key, *, for_update: bool = False) -> Key:
    found = await store.key(session, key_id, for_update=for_update) if ids.is_key_id(key_id) else None
    return management.require_own(found, manager)
