"""The wire: each call is validated, converted, decided by a pure module, and kept by the store in one transaction."""
# ruff: noqa: N802 - the contract names the methods

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from auth_svc import accounts, convert, ids, key_format, keys, metrics, store
from auth_svc.accounts import Account
from auth_svc.change_feed import ChangeFeed
from auth_svc.key_writing import KeyWriter, key_with_id
from auth_svc.keys import Verdict
from auth_svc.limits import Tiers
from auth_svc.names import validated_name
from chassis.clock import Clock
from chassis.database import Database
from chassis.faults import AlreadyExists, InvalidArgument, NotFound
from chassis.pages import key_from_page_token, page_size, page_token
from protos.auth.v1 import auth_pb2 as pb
from protos.auth.v1 import auth_pb2_grpc as rpc


class KeyServicer(rpc.KeyServiceServicer):
    """For edges: what a key allows, and what has changed."""

    def __init__(
        self, database: Database, clock: Clock, feed: ChangeFeed, pepper: bytes, tiers: Tiers, heartbeat_s: float
    ) -> None:
        self._database, self._clock, self._feed = database, clock, feed
        self._pepper, self._tiers, self._heartbeat_s = pepper, tiers, heartbeat_s

    async def Authenticate(self, request: pb.AuthenticateRequest, context: Any) -> pb.AuthenticateResponse:
        secret_hmac = key_format.stored_hash(request.key_sha256, self._pepper)
        async with self._database.read() as session:
            presented = await store.presented_key(session, secret_hmac)
        if presented is None:
            verdict = Verdict.UNKNOWN
        else:
            verdict = keys.verdict(presented.key, presented.account_state, self._clock.now())
        metrics.AUTHENTICATIONS.labels(verdict.value).inc()
        if presented is None or verdict not in (Verdict.GRANTED, Verdict.SUSPENDED):
            # One and the same text: who guesses must not learn that a key once worked.
            raise NotFound("KEY_NOT_FOUND", "no working key has this hash")
        return pb.AuthenticateResponse(grant=convert.grant_to_pb(presented, self._tiers), revision=presented.revision)

    async def WatchKeys(self, request: pb.WatchKeysRequest, context: Any) -> AsyncIterator[pb.WatchKeysResponse]:
        if request.after_revision < 0:
            raise InvalidArgument("after_revision", "negative: give the last revision seen, or 0 to start anew")
        with metrics.WATCHES_OPEN.track_inprogress():
            async with aclosing(self._feed.follow(request.after_revision)) as messages:
                async for message in messages:
                    yield convert.watch_message_to_pb(message, self._heartbeat_s)


class AuthAdminServicer(rpc.AuthAdminServiceServicer):
    """For operators: accounts and keys."""

    def __init__(
        self, database: Database, clock: Clock, writer: KeyWriter, tiers: Tiers, new_uuid: ids.NewUuid
    ) -> None:
        self._database, self._clock = database, clock
        self._writer, self._tiers, self._new_uuid = writer, tiers, new_uuid

    async def CreateAccount(self, request: pb.CreateAccountRequest, context: Any) -> pb.CreateAccountResponse:
        new = accounts.new_account(ids.account_id(self._new_uuid()), request.name, self._clock.now())

        async def act(session: AsyncSession) -> pb.CreateAccountResponse:
            await _require_name_free(session, new)
            await store.insert_account(session, new)
            return pb.CreateAccountResponse(account=convert.account_to_pb(new))

        return await self._writer.write_once(request, pb.CreateAccountResponse, act)

    async def GetAccount(self, request: pb.GetAccountRequest, context: Any) -> pb.GetAccountResponse:
        match request.WhichOneof("lookup"):
            case "account_id":
                ids.require_given("account_id", request.account_id)
                async with self._database.read() as session:
                    found = await _account(session, request.account_id)
            case "name":
                validated_name("name", request.name)
                async with self._database.read() as session:
                    named = await store.account_named(session, request.name)
                if named is None:
                    raise _account_not_found(request.name)
                found = named
            case None:
                raise InvalidArgument("lookup", "give account_id or name")
        return pb.GetAccountResponse(account=convert.account_to_pb(found))

    async def ListAccounts(self, request: pb.ListAccountsRequest, context: Any) -> pb.ListAccountsResponse:
        size, query = page_size(request.page_size), "accounts"
        after_id = key_from_page_token(request.page_token, query)
        async with self._database.read() as session:
            found = await store.accounts_after(session, after_id, size + 1)
        page = found[:size]
        return pb.ListAccountsResponse(
            accounts=map(convert.account_to_pb, page),
            next_page_token=page_token(page[-1].account_id, query) if len(found) > size else "",
        )

    async def UpdateAccount(self, request: pb.UpdateAccountRequest, context: Any) -> pb.UpdateAccountResponse:
        changes = convert.account_changes_from_pb(request.account, request.update_mask.paths)
        ids.require_given("account.account_id", request.account.account_id)

        async def act(session: AsyncSession) -> pb.UpdateAccountResponse:
            before = await _account(session, request.account.account_id, for_update=True)
            after = accounts.updated(before, changes)
            if after.name != before.name:
                await _require_name_free(session, after)
            await store.save_account(session, after)
            if after.state is not before.state:
                await self._writer.append_change(session, account_id=after.account_id)
            return pb.UpdateAccountResponse(account=convert.account_to_pb(after))

        return await self._writer.write_once(request, pb.UpdateAccountResponse, act)

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Any) -> pb.CreateKeyResponse:
        ids.require_given("key.account_id", request.key.account_id)
        terms = keys.validated(convert.key_terms_from_pb(request.key), self._tiers)
        now = self._clock.now()
        new = self._writer.drawn(request.key.account_id, terms, now, request.secret)
        # What is kept to recognise a repeat must not hold an imported secret, not even inside a plain hash.
        recognised = pb.CreateKeyRequest(
            request_id=request.request_id, key=request.key, secret=new.secret_hmac.hex() if request.secret else ""
        )

        async def act(session: AsyncSession) -> pb.CreateKeyResponse:
            keys.require_future(terms.expire_time, now)  # not sooner: a late repeat gets its first answer
            await _account(session, new.key.account_id)
            if await store.is_secret_taken(session, new.secret_hmac):
                raise AlreadyExists("SECRET_TAKEN", "secret: a key has this secret: leave it empty to have one drawn")
            await store.insert_key(session, new.key, new.secret_hmac)
            return pb.CreateKeyResponse(key=convert.key_to_pb(new.key, self._tiers), secret=new.secret)

        return await self._writer.write_once(
            recognised, pb.CreateKeyResponse, act, keep=lambda response: pb.CreateKeyResponse(key=response.key)
        )

    async def GetKey(self, request: pb.GetKeyRequest, context: Any) -> pb.GetKeyResponse:
        ids.require_given("key_id", request.key_id)
        async with self._database.read() as session:
            found = await key_with_id(session, request.key_id)
        return pb.GetKeyResponse(key=convert.key_to_pb(found, self._tiers))

    async def ListKeys(self, request: pb.ListKeysRequest, context: Any) -> pb.ListKeysResponse:
        ids.require_given("account_id", request.account_id)
        size, query = page_size(request.page_size), f"keys of {request.account_id}"
        after_id = key_from_page_token(request.page_token, query)
        async with self._database.read() as session:
            await _account(session, request.account_id)
            found = await store.keys_after(session, request.account_id, after_id, size + 1)
        page = found[:size]
        return pb.ListKeysResponse(
            keys=(convert.key_to_pb(each, self._tiers) for each in page),
            next_page_token=page_token(page[-1].key_id, query) if len(found) > size else "",
        )

    async def UpdateKey(self, request: pb.UpdateKeyRequest, context: Any) -> pb.UpdateKeyResponse:
        changes = convert.key_changes_from_pb(request.key, request.update_mask.paths)
        ids.require_given("key.key_id", request.key.key_id)

        async def act(session: AsyncSession) -> pb.UpdateKeyResponse:
            before = await key_with_id(session, request.key.key_id, for_update=True)
            after = keys.updated(before, changes, self._clock.now(), self._tiers)
            await self._writer.save_key(session, before, after)
            return pb.UpdateKeyResponse(key=convert.key_to_pb(after, self._tiers))

        return await self._writer.write_once(request, pb.UpdateKeyResponse, act)

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Any) -> pb.RevokeKeyResponse:
        ids.require_given("key_id", request.key_id)

        async def act(session: AsyncSession) -> pb.RevokeKeyResponse:
            before = await key_with_id(session, request.key_id, for_update=True)
            after = keys.revoked(before, self._clock.now())
            await self._writer.save_key(session, before, after)
            return pb.RevokeKeyResponse(key=convert.key_to_pb(after, self._tiers))

        return await self._writer.write_once(request, pb.RevokeKeyResponse, act)


async def _account(session: AsyncSession, account_id: str, *, for_update: bool = False) -> Account:
    found = None
    if ids.is_account_id(account_id):
        found = await store.account(session, account_id, for_update=for_update)
    if found is None:
        raise _account_not_found(account_id)
    return found


async def _require_name_free(session: AsyncSession, wanted: Account) -> None:
    if await store.account_named(session, wanted.name) is not None:
        raise AlreadyExists("ACCOUNT_NAME_TAKEN", f"an account is named {wanted.name!r}: choose another name")


def _account_not_found(wanted: str) -> NotFound:
    return NotFound("ACCOUNT_NOT_FOUND", f"no account is {wanted[:100]!r}: see ListAccounts")
