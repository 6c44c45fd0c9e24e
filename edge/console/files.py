"""The page's files: read once when the edge starts, served with what keeps a browser from doing anything else.

There is no build step: what is in `static/` is what the browser gets.
"""

from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path

from edge.http.answer import Answer, Headers, Sent, simple_answer
from edge.http.protocol import Request
from edge.http.record import RequestRecord

PATH = "/console"
STATIC_DIR = Path(__file__).parent / "static"
INDEX = "index.html"
_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Everything comes from this origin, and text never becomes markup: the last line has the browser refuse any attempt.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
SECURITY_HEADERS: Headers = (
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)

Handler = Callable[[Request, RequestRecord], Awaitable[Sent]]


def file_handlers(folder: Path = STATIC_DIR) -> dict[str, Handler]:
    """A handler for each file, by its path below /console; the index also for /console itself."""
    handlers = {
        f"{PATH}/{path.name}": _serving(path.read_bytes(), _TYPES[path.suffix])
        for path in sorted(folder.iterdir())
        if path.suffix in _TYPES
    }
    index = handlers.pop(f"{PATH}/{INDEX}")
    return {PATH: index, f"{PATH}/": index, **handlers}


def _serving(content: bytes, content_type: str) -> Handler:
    """Serves one file. Browsers keep it and ask each time whether it is still that one: files of two versions of
    Tollgate never meet in one page, and usually nothing is sent."""
    etag = f'"{sha256(content).hexdigest()[:20]}"'
    headers = (("etag", etag), ("cache-control", "no-cache"), *SECURITY_HEADERS)
    whole, unchanged = Answer(200, content, content_type, headers), Answer(304, headers=headers)

    async def serve(request: Request, record: RequestRecord) -> Sent:
        known = [each.strip().removeprefix("W/") for each in request.headers.get("If-None-Match", "").split(",")]
        answer = unchanged if etag in known or "*" in known else whole
        return simple_answer(request, answer, request_id=record.request_id)

    return serve
