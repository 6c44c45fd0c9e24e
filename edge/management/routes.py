"""Which path and method of the management API goes to which handler."""

from collections.abc import Awaitable, Callable, Mapping

from edge.http.answer import Sent
from edge.http.protocol import Request
from edge.http.record import RequestRecord
from edge.management.keys import PATH as KEYS_PATH
from edge.management.keys import Keys
from edge.management.logs import LOGS_PATH, Logs
from edge.management.spending import REQUESTS_PATH, Spending

Handler = Callable[[Request, RequestRecord], Awaitable[Sent]]
Methods = Mapping[str, tuple[str, Handler]]  # method -> (endpoint label, handler)


class ManagementRoutes:
    """`exact` paths by themselves; `below` those that hold an id."""

    def __init__(self, keys: Keys, spending: Spending, logs: Logs) -> None:
        self.exact: Mapping[str, Methods] = {
            KEYS_PATH: {**_readable("keys", keys.list_keys), "POST": ("keys", keys.create)},
            "/v1/balance": _readable("balance", spending.balance),
            "/v1/usage": _readable("usage", spending.usage),
            REQUESTS_PATH: _readable("requests", spending.list_requests),
            LOGS_PATH: {**_readable("logs", logs.list_logs), "DELETE": ("logs", logs.delete_logs)},
        }
        self._one_key: Methods = {
            **_readable("keys", keys.get),
            "PATCH": ("keys", keys.update),
            "DELETE": ("keys", keys.delete),
        }
        self._rotation: Methods = {"POST": ("keys", keys.rotate)}
        self._one_request = _readable("requests", spending.one_request)
        self._one_log: Methods = {**_readable("logs", logs.one_log), "DELETE": ("logs", logs.delete_log)}

    def below(self, path: str) -> Methods | None:
        """The methods of a path with an id in it; None where there is no such path."""
        for parent, one, rotation in (
            (f"{KEYS_PATH}/", self._one_key, self._rotation),
            (f"{REQUESTS_PATH}/", self._one_request, None),
            (f"{LOGS_PATH}/", self._one_log, None),
        ):
            if path.startswith(parent):
                name, slash, rest = path.removeprefix(parent).partition("/")
                if name and not slash:
                    return one
                return rotation if name and rest == "rotate" else None
        return None


def _readable(endpoint: str, handler: Handler) -> Methods:
    return {"GET": (endpoint, handler), "HEAD": (endpoint, handler)}
