"""/console: which path goes to which file or handler, and who is signed in."""

from collections.abc import Mapping

import msgspec

from edge.access.key_cache import Grant
from edge.console import cookie
from edge.console.files import PATH, SECURITY_HEADERS, file_handlers
from edge.http.answer import Answer, Headers, Sent, header_lines, simple_answer
from edge.http.body import read_body as read_bytes
from edge.http.protocol import Request
from edge.http.record import RequestRecord
from edge.listing import Listing
from edge.management.caller import Callers
from edge.management.parse import Query, read_body
from edge.management.routes import Handler, ManagementRoutes, Methods
from edge.openai import errors
from edge.openai.errors import RequestError

SESSION_PATH = f"{PATH}/session"
API_PATH = f"{PATH}/api/"
SIGN_IN_BYTES_MAX = 4096
_LABEL = "console"
_SECURITY_LINES = header_lines(SECURITY_HEADERS)
# What the cookie's key is refused with when it does not work any more, or never managed anything.
_SIGNED_OUT_BY = ("invalid_api_key", "permission_denied")


class SignIn(msgspec.Struct, forbid_unknown_fields=True):
    """Who wants to sign in."""

    key: str


class Session(msgspec.Struct):
    """Who is signed in."""

    signed_in: bool
    account_id: str | None = None
    key_id: str | None = None
    message: str | None = None  # why somebody who was signed in is not any more


class ConsoleRoutes:
    """`exact` paths by themselves; `below` those of the management API, with the cookie's key."""

    def __init__(self, callers: Callers, management: ManagementRoutes, listing: Listing, body_timeout_s: float) -> None:
        self._callers, self._management, self._body_timeout_s = callers, management, body_timeout_s
        self._models: Methods = {"GET": ("models", listing.list_models)}
        self.exact: Mapping[str, Methods] = {
            **{path: {"GET": (_LABEL, serve), "HEAD": (_LABEL, serve)} for path, serve in file_handlers().items()},
            SESSION_PATH: {
                "GET": (_LABEL, self._session),
                "POST": (_LABEL, self._sign_in),
                "DELETE": (_LABEL, self._sign_out),
            },
        }

    def below(self, path: str) -> Methods | None:
        """The methods of a path of the API as the page calls it; None where there is no such path."""
        if not path.startswith(API_PATH):
            return None
        meant = "/v1/" + path.removeprefix(API_PATH)
        methods = self._models if meant == "/v1/models" else self._management.exact.get(meant)
        if methods is None:
            methods = self._management.below(meant)
        if methods is None:
            return None
        return {method: (label, _by_cookie(handler, meant)) for method, (label, handler) in methods.items()}

    async def _session(self, request: Request, record: RequestRecord) -> Sent:
        """GET: who is signed in. That nobody is, is an answer and no error."""
        cookie.require_own_page(request)
        Query(request.query, ())
        key = cookie.key_in(request.headers)
        if key is None:
            return _sent(request, record, Session(signed_in=False))
        try:
            grant = await self._callers.manager(cookie.with_key(request, key, SESSION_PATH), record)
        except RequestError as error:
            if error.reason not in _SIGNED_OUT_BY:
                raise
            return _sent(request, record, Session(signed_in=False, message=error.message), (cookie.SIGNED_OUT,))
        return _sent(request, record, _session_of(grant))

    async def _sign_in(self, request: Request, record: RequestRecord) -> Sent:
        """POST {"key": "tg_..."}; guesses are limited as they are everywhere, per address."""
        cookie.require_own_page(request)
        Query(request.query, ())
        asked = read_body(await read_bytes(request, SIGN_IN_BYTES_MAX, self._body_timeout_s), SignIn)
        key = asked.key.strip()
        grant = await self._callers.manager(cookie.with_key(request, key, SESSION_PATH), record)
        return _sent(request, record, _session_of(grant), (cookie.signed_in(key, request),))

    async def _sign_out(self, request: Request, record: RequestRecord) -> Sent:
        """DELETE: the browser forgets the key."""
        cookie.require_own_page(request)
        return _sent(request, record, Session(signed_in=False), (cookie.SIGNED_OUT,))


def guard(request: Request) -> None:
    """Has whatever answers this request carry the headers that the page's files carry."""
    request.answer_lines = _SECURITY_LINES


def _by_cookie(handler: Handler, path: str) -> Handler:
    async def ask(request: Request, record: RequestRecord) -> Sent:
        cookie.require_own_page(request)
        key = cookie.key_in(request.headers)
        if key is None:
            raise errors.invalid_api_key()
        meant = cookie.with_key(request, key, path)
        guard(meant)
        return await handler(meant, record)

    return ask


def _session_of(grant: Grant) -> Session:
    return Session(signed_in=True, account_id=grant.account_id, key_id=grant.key_id)


def _sent(request: Request, record: RequestRecord, session: Session, headers: Headers = ()) -> Sent:
    guard(request)
    answer = Answer(200, msgspec.json.encode(session), headers=(("cache-control", "no-store"), *headers))
    return simple_answer(request, answer, request_id=record.request_id)
