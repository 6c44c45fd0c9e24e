"""How keys are written, whoever asks for it: drawn, kept, changed, and told to every watcher."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from google.protobuf.message import Message
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_svc import ids, key_format, store
from auth_svc.change_feed import ChangeFeed
from auth_svc.keys import Key, KeyTerms, grants_differ
from auth_svc.tables import WriteRow
from chassis import secret_token
from chassis.clock import Clock
from chassis.database import Database
from chassis.faults import NotFound
from chassis.once import once

ResponseT = TypeVar("ResponseT", bound=Message)


@dataclass(frozen=True, slots=True)
class DrawnKey:
    """A key that is not kept yet, with its secret, which nobody can show again."""

    key: Key
    secret: str
    secret_hmac: bytes


class KeyWriter:
    """What both servicers write with."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        feed: ChangeFeed,
        pepper: bytes,
        history_max: int,
        new_uuid: ids.NewUuid,
        random_bytes: key_format.RandomBytes,
    ) -> None:
        self._database, self._clock, self._feed = database, clock, feed
        self._pepper, self._history_max = pepper, history_max
        self._new_uuid, self._random_bytes = new_uuid, random_bytes

    def drawn(self, account_id: str, terms: KeyTerms, now: datetime, imported: str = "") -> DrawnKey:
        """A new key of an account; its secret is drawn, unless the operator brings one.

        Raises:
            InvalidArgument: the imported secret is not in the key format.
        """
        secret = key_format.imported_secret(imported) if imported else key_format.new_secret(self._random_bytes)
        secret_hmac = key_format.stored_hash(secret_token.digest(secret), self._pepper)
        prefix = secret_token.public_prefix(secret)
        return DrawnKey(Key(ids.key_id(self._new_uuid()), account_id, prefix, terms, now), secret, secret_hmac)

    async def save_key(self, session: AsyncSession, before: Key, after: Key) -> None:
        """Keeps what changed, and tells edges if it matters to them. The change is numbered last, see the store."""
        if after != before:
            await store.save_key(session, after)
        if grants_differ(before, after):
            await self.append_change(session, key_id=after.key_id)

    async def append_change(
        self, session: AsyncSession, *, key_id: str | None = None, account_id: str | None = None
    ) -> None:
        """Tells edges to forget what they hold of a key or of an account."""
        await store.append_change(session, key_id=key_id, account_id=account_id, history_max=self._history_max)

    async def write_once(
        self,
        request: Message,
        response_type: type[ResponseT],
        act: Callable[[AsyncSession], Awaitable[ResponseT]],
        keep: Callable[[ResponseT], ResponseT] | None = None,
    ) -> ResponseT:
        """Runs `act` in a transaction, once per request_id, and lets watchers know at once."""

        async def work(session: AsyncSession) -> ResponseT:
            return await once(session, WriteRow, request, response_type, self._clock.now(), lambda: act(session), keep)

        response = await self._database.write(work)
        self._feed.look_now()
        return response


async def key_with_id(session: AsyncSession, key_id: str, *, for_update: bool = False) -> Key:
    """A key, for operators.

    Raises:
        NotFound: no key has the id (KEY_NOT_FOUND).
    """
    found = None
    if ids.is_key_id(key_id):
        found = await store.key(session, key_id, for_update=for_update)
    if found is None:
        raise NotFound("KEY_NOT_FOUND", f"no key has the id {key_id[:100]!r}: see ListKeys")
    return found
