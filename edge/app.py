"""The HTTP surface: which path and method goes to which room, and what happens around every request.

One of the three places that may catch every exception: whatever a request meets, its client gets an answer in the
documented shape with a request id, its record is written once, and a bug leaks nothing.
"""

import time
from collections.abc import Mapping
from functools import partial
from urllib.parse import unquote

from chassis.log import logger
from edge import metrics
from edge.console import files
from edge.console.routes import ConsoleRoutes, guard
from edge.generation import Generator
from edge.http.access_log import AccessLog
from edge.http.answer import Answer, Sent, simple_answer
from edge.http.body import ClientGone
from edge.http.protocol import Request
from edge.http.record import CLIENT_GONE_STATUS, RequestRecord
from edge.listing import Listing
from edge.management.routes import Handler, ManagementRoutes, Methods
from edge.openai import errors
from edge.openai.errors import RequestError
from edge.readiness import Readiness
from edge.reference.pages import page_handlers
from edge.routing.snapshot import CHAT, RESPONSES

_log = logger(__name__)

_PREFLIGHT_MAX_AGE_S = 600


class App:
    """Call it with a request; it answers."""

    def __init__(
        self,
        generator: Generator,
        listing: Listing,
        management: ManagementRoutes,
        console: ConsoleRoutes | None,
        readiness: Readiness,
        access_log: AccessLog,
        client_stall_s: float,
    ) -> None:
        self._access_log = access_log
        self._client_stall_s = client_stall_s
        self._listing = listing
        self._readiness = readiness
        # path -> method -> (endpoint label, handler)
        self._routes: Mapping[str, Methods] = {
            "/v1/chat/completions": {"POST": ("chat_completions", partial(generator.generate, CHAT))},
            "/v1/responses": {"POST": ("responses", partial(generator.generate, RESPONSES))},
            "/v1/models": _readable("models", listing.list_models),
            "/healthz": _readable("health", readiness.alive),
            "/readyz": _readable("health", readiness.ready),
            **management.exact,
            **(console.exact if console is not None else {}),
            **{path: _readable("docs", handler) for path, handler in page_handlers().items()},
        }
        self._management, self._console = management, console
        self._one_model = _readable("models", self._model)

    async def __call__(self, request: Request) -> Sent:
        """Answers one request, whatever happens."""
        record = RequestRecord(request.method, request.path, time.monotonic())
        try:
            endpoint, handler = self._find(request)
            record.endpoint = endpoint
            sent = await handler(request, record)
        except RequestError as error:
            sent = self._refuse(request, record, error)
        except (ClientGone, ConnectionError):
            record.error = "client_gone"
            sent = Sent(CLIENT_GONE_STATUS, keep_alive=False)
        except Exception as error:  # noqa: BLE001 - the middleware: one of the three places
            _log.error("request failed", request_id=record.request_id, path=record.path[:200], exc_info=error)
            sent = self._refuse(request, record, errors.internal_error())
        record.status = sent.status
        self._finish(record)
        if request.connection.writing_paused:
            await request.connection.until_taken(self._client_stall_s)
        return sent

    def _refuse(self, request: Request, record: RequestRecord, error: RequestError) -> Sent:
        record.error = error.reason
        metrics.ERRORS.labels(error.reason).inc()
        if request.path.startswith(files.PATH):
            guard(request)
        return simple_answer(request, Answer.from_error(error, record.rate_headers), request_id=record.request_id)

    def _find(self, request: Request) -> tuple[str, Handler]:
        methods = self._routes.get(request.path)
        if methods is None:
            is_model = request.path.startswith("/v1/models/")
            methods = self._one_model if is_model else self._management.below(request.path)
            if methods is None and self._console is not None:
                methods = self._console.below(request.path)
        if methods is None:
            raise errors.not_found(unquote(request.path))
        found = methods.get(request.method)
        if found is not None:
            return found
        if request.method == "OPTIONS":
            return "other", _preflight(methods)
        if request.path == "/v1/responses" and request.method == "GET" and _is_websocket(request):
            raise errors.upgrade_required()
        raise errors.method_not_allowed(request.method, request.path, [*methods, "OPTIONS"])

    async def _model(self, request: Request, record: RequestRecord) -> Sent:
        return await self._listing.one_model(request, record, unquote(request.path.removeprefix("/v1/models/")))

    def _finish(self, record: RequestRecord) -> None:
        now_s = time.monotonic()
        duration_s = now_s - record.started_at_s
        meters = metrics.request_meters(record.endpoint, record.model, record.status)
        meters.requests.inc()
        meters.duration.observe(duration_s)
        if record.first_byte_at_s:
            meters.first_byte.observe(record.first_byte_at_s - record.started_at_s)
            meters.overhead.observe(max(0.0, duration_s - record.upstream_s))
        self._access_log.write(record, now_s)


def _readable(endpoint: str, handler: Handler) -> Methods:
    return {"GET": (endpoint, handler), "HEAD": (endpoint, handler)}


def _preflight(methods: Mapping[str, object]) -> Handler:
    """CORS: browsers ask before they send a key. The headers asked for are echoed: `*` would exclude Authorization."""

    async def answer(request: Request, record: RequestRecord) -> Sent:
        allowed = ", ".join([*methods, "OPTIONS"])
        headers = [("allow", allowed)]
        if "Origin" in request.headers:
            headers += [
                ("access-control-allow-methods", allowed),
                (
                    "access-control-allow-headers",
                    request.headers.get("Access-Control-Request-Headers", "authorization"),
                ),
                ("access-control-max-age", str(_PREFLIGHT_MAX_AGE_S)),
                ("vary", "access-control-request-headers"),
            ]
        return simple_answer(request, Answer(204, headers=headers), request_id=record.request_id)

    return answer


def _is_websocket(request: Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"
