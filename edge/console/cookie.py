"""The cookie that signs a browser in, and the proof that a request is the page's own. Pure.

The cookie holds the management key itself, where no script can read it. Edges share nothing, so a token of our own
would need a secret that all of them have, and would open the same doors to who steals it; this way a revoked key signs
out every browser within a second, at every edge.
"""

from urllib.parse import urlsplit

from multidict import CIMultiDict, CIMultiDictProxy

from edge.http.protocol import Request
from edge.openai import errors

COOKIE = "tollgate_console"
# A working day: then the browser forgets the key.
MAX_AGE_S = 12 * 3600
# Other sites' pages cannot send it without a preflight, and a preflight never lets cookies along.
PAGE_HEADER = "X-Tollgate-Console"
_READING = ("GET", "HEAD")


def require_own_page(request: Request) -> None:
    """Beside SameSite=Strict, against requests that another site's page makes in the customer's browser.

    Raises:
        RequestError: 403: it does not come from the page.
    """
    headers = request.headers
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is not None:  # the browser's own word
        is_own = site == "same-origin"
    elif origin is not None:
        is_own = _host(origin) == headers.get("Host", "").lower()
    else:
        is_own = request.method in _READING
    if not is_own or PAGE_HEADER not in headers:
        raise errors.permission_denied("Only the console's own page may ask this. Use /v1 with an API key instead.")


def key_in(headers: CIMultiDictProxy[str]) -> str | None:
    """The key that a request's cookie holds; None where there is none, or several that differ."""
    found = set()
    for value in headers.getall("Cookie", ()):
        for pair in value.split(";"):
            name, _, content = pair.strip().partition("=")
            if name == COOKIE and content:
                found.add(content)
    return found.pop() if len(found) == 1 else None


def signed_in(key: str, request: Request) -> tuple[str, str]:
    """The header that signs a browser in."""
    transport = request.connection.transport
    # Behind a proxy that ends TLS only the browser knows what it speaks, and says it in Origin.
    is_https = request.headers.get("Origin", "").startswith("https://") or (
        transport is not None and transport.get_extra_info("sslcontext") is not None
    )
    secure = "; Secure" if is_https else ""
    return "set-cookie", f"{COOKIE}={key}; Path=/console; Max-Age={MAX_AGE_S}; HttpOnly; SameSite=Strict{secure}"


SIGNED_OUT = ("set-cookie", f"{COOKIE}=; Path=/console; Max-Age=0; HttpOnly; SameSite=Strict")


def with_key(request: Request, key: str, path: str) -> Request:
    """The same request as a client of the API would make it: another path, and the key where keys belong."""
    headers = CIMultiDict(request.headers)
    for name in ("Authorization", "Cookie", "Origin"):
        headers.popall(name, None)
    headers["Authorization"] = f"Bearer {key}"
    target = f"{path}?{request.query}" if request.query else path
    message = request.message._replace(path=target, headers=CIMultiDictProxy(headers))
    return Request(message, request.content, request.connection)


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
