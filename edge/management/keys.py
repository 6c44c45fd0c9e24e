"""/v1/keys: what customers do with their keys. auth_svc judges each call by the key that asks."""

from urllib.parse import unquote

from google.protobuf.field_mask_pb2 import FieldMask

from chassis.clock import Clock
from edge.http.answer import Answer, Sent, simple_answer
from edge.http.body import read_body as read_bytes
from edge.http.protocol import Request
from edge.http.record import RequestRecord
from edge.management import convert, refusals, shapes
from edge.management.caller import Callers
from edge.management.parse import ID_CHARS_MAX, Query, read_body
from edge.openai import errors
from edge.openai.errors import RequestError
from protos.auth.v1 import auth_pb2, auth_pb2_grpc
from protos.usage.v1 import usage_pb2, usage_pb2_grpc

# A thousand model ids fit several times.
BODY_BYTES_MAX = 1024 * 1024
PATH = "/v1/keys"
_NOT_SHOWN = (
    "The key was made, but its secret was lost on the way and nobody can show it: delete the newest key of this name, "
    "and create another one."
)


class Keys:
    """Handlers of /v1/keys and what is below it."""

    def __init__(
        self,
        callers: Callers,
        clock: Clock,
        auth: "auth_pb2_grpc.KeyManagementServiceAsyncStub",
        usage: "usage_pb2_grpc.UsageServiceAsyncStub",
        body_timeout_s: float,
    ) -> None:
        self._callers, self._clock, self._auth, self._usage = callers, clock, auth, usage
        self._body_timeout_s = body_timeout_s

    async def create(self, request: Request, record: RequestRecord) -> Sent:
        """POST /v1/keys."""
        manager = await self._callers.manager(request, record)
        Query(request.query, ())
        body = read_body(await self._body(request), shapes.KeyCreate)
        asked = auth_pb2.CreateOwnKeyRequest(
            request_id=record.request_id, manager_key_id=manager.key_id, key=convert.key_to_pb(body)
        )
        answer = await self._callers.call(self._auth.CreateOwnKey, asked, record)
        _require_secret(answer.secret)
        return _sent(request, record, convert.new_key_from_pb(answer.key, answer.secret, self._clock.now()))

    async def list_keys(self, request: Request, record: RequestRecord) -> Sent:
        """GET /v1/keys."""
        manager = await self._callers.manager(request, record)
        query = Query(request.query, ("limit", "after", "include_revoked"))
        asked = auth_pb2.ListOwnKeysRequest(
            manager_key_id=manager.key_id,
            page_size=query.page_size(),
            after_key_id=query.text("after", ID_CHARS_MAX),
            include_revoked=query.flag("include_revoked"),
        )
        answer = await self._callers.call(self._auth.ListOwnKeys, asked, record)
        uses = await self._last_uses(manager.account_id, [key.key_id for key in answer.keys], record)
        now = self._clock.now()
        listed = [convert.key_from_pb(key, uses.get(key.key_id), now) for key in answer.keys]
        page = shapes.KeyList(
            data=listed,
            first_id=listed[0].id if listed else None,
            last_id=listed[-1].id if listed else None,
            has_more=answer.has_more,
        )
        return _sent(request, record, page)

    async def get(self, request: Request, record: RequestRecord) -> Sent:
        """GET /v1/keys/{id}."""
        manager = await self._callers.manager(request, record)
        Query(request.query, ())
        asked = auth_pb2.GetOwnKeyRequest(manager_key_id=manager.key_id, key_id=_key_id(request))
        answer = await self._callers.call(self._auth.GetOwnKey, asked, record)
        return await self._shown(request, record, answer.key)

    async def update(self, request: Request, record: RequestRecord) -> Sent:
        """PATCH /v1/keys/{id}."""
        manager = await self._callers.manager(request, record)
        Query(request.query, ())
        body = read_body(await self._body(request), shapes.KeyUpdate)
        paths = convert.update_paths(body)
        if not paths:
            raise errors.invalid_request("The body names nothing to change.")
        key = convert.key_to_pb(body)
        key.key_id = _key_id(request)
        asked = auth_pb2.UpdateOwnKeyRequest(
            request_id=record.request_id,
            manager_key_id=manager.key_id,
            key=key,
            update_mask=FieldMask(paths=paths),
        )
        answer = await self._callers.call(self._auth.UpdateOwnKey, asked, record)
        return await self._shown(request, record, answer.key)

    async def rotate(self, request: Request, record: RequestRecord) -> Sent:
        """POST /v1/keys/{id}/rotate; a body is not needed."""
        manager = await self._callers.manager(request, record)
        Query(request.query, ())
        body = read_body(await self._body(request) or b"{}", shapes.KeyRotate)
        asked = auth_pb2.RotateOwnKeyRequest(
            request_id=record.request_id,
            manager_key_id=manager.key_id,
            key_id=_key_id(request),
            overlap=convert.duration_to_pb(body.overlap_seconds),
            expire_time=None if body.expires_at is None else convert.moment_to_pb(body.expires_at),
        )
        answer = await self._callers.call(self._auth.RotateOwnKey, asked, record)
        _require_secret(answer.secret)
        uses = await self._last_uses(manager.account_id, [asked.key_id], record)
        return _sent(request, record, convert.rotated_key_from_pb(answer, uses.get(asked.key_id), self._clock.now()))

    async def delete(self, request: Request, record: RequestRecord) -> Sent:
        """DELETE /v1/keys/{id}."""
        manager = await self._callers.manager(request, record)
        Query(request.query, ())
        asked = auth_pb2.RevokeOwnKeyRequest(
            request_id=record.request_id, manager_key_id=manager.key_id, key_id=_key_id(request)
        )
        answer = await self._callers.call(self._auth.RevokeOwnKey, asked, record)
        return _sent(request, record, shapes.KeyDeleted(answer.key.key_id))

    async def _shown(self, request: Request, record: RequestRecord, key: auth_pb2.Key) -> Sent:
        uses = await self._last_uses(key.account_id, [key.key_id], record)
        return _sent(request, record, convert.key_from_pb(key, uses.get(key.key_id), self._clock.now()))

    async def _last_uses(self, account_id: str, key_ids: list[str], record: RequestRecord) -> dict[str, int]:
        """When keys were last used. Without usage_svc keys can be managed all the same, and this is not known."""
        if not key_ids:
            return {}
        asked = usage_pb2.ListKeyUsesRequest(account_id=account_id, key_ids=key_ids)
        try:
            answer = await self._callers.call(self._usage.ListKeyUses, asked, record)
        except RequestError:
            return {}
        return {use.key_id: use.last_use_time.seconds for use in answer.uses}

    async def _body(self, request: Request) -> bytes:
        return await read_bytes(request, BODY_BYTES_MAX, self._body_timeout_s)


def _key_id(request: Request) -> str:
    """`{id}` of /v1/keys/{id} and /v1/keys/{id}/rotate."""
    key_id = unquote(request.path.removeprefix(f"{PATH}/").removesuffix("/rotate"))
    if not 0 < len(key_id) <= ID_CHARS_MAX:
        raise refusals.resource_not_found()
    return key_id


def _require_secret(secret: str) -> None:
    if not secret:  # an answer was lost between us and auth_svc, and what is kept of it for a repeat has none
        raise errors.unavailable(_NOT_SHOWN, retry_after_s=1)


def _sent(request: Request, record: RequestRecord, shape: object) -> Sent:
    return simple_answer(request, Answer.from_json(shape), request_id=record.request_id)
