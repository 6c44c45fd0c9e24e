"""One record per request: what its log line and its metrics say."""

from typing import TYPE_CHECKING

from edge.http.answer import Headers, new_request_id

if TYPE_CHECKING:
    from pricing import TokenUsage

CLIENT_GONE_STATUS = 499  # nginx's; the client left before there was a status


class RequestRecord:
    """Filled in as the request goes its way."""

    __slots__ = (
        "account_id",
        "attempts",
        "charge_nanousd",
        "deployment_id",
        "ending",
        "endpoint",
        "error",
        "first_byte_at_s",
        "key_prefix",
        "method",
        "model",
        "path",
        "rate_headers",
        "request_id",
        "started_at_s",
        "status",
        "upstream_s",
        "usage",
    )

    def __init__(self, method: str, path: str, started_at_s: float) -> None:
        self.request_id = new_request_id()
        self.method, self.path = method, path
        self.started_at_s = started_at_s
        self.endpoint = "other"
        self.status = 0
        self.error = ""
        self.account_id = ""
        self.key_prefix = ""
        self.model = ""
        self.deployment_id = ""
        self.attempts = 0
        self.ending = ""
        self.usage: TokenUsage | None = None
        self.charge_nanousd = 0
        self.first_byte_at_s = 0.0
        self.upstream_s = 0.0
        self.rate_headers: Headers = ()  # what a limited key has left, for the answer
