"""What the scripted upstream remembers of every request: what it received, and what it said of usage."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Recorded:
    """One request exactly as received, without interpretation."""

    number: int  # from 1, in order of arrival
    connection: int  # from 1; the same number is the same TCP connection
    method: str
    target: str
    headers: list[tuple[str, str]]  # names and values as sent (latin-1), in order
    body: bytes

    @property
    def json(self) -> Any:
        """The body parsed.

        Raises:
            ValueError: it is not JSON.
        """
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The only header of that name in any case; None where there is none.

        Raises:
            AssertionError: it came more than once.
        """
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None


@dataclass(slots=True)
class Reported:
    """What one answer told of its usage: the other side of the bill."""

    number: int  # of the request
    answer_id: str  # "id" of the answer, as the client sees it in chat; Responses put "resp_" before it
    model: str
    streamed: bool
    status: int = 0  # 0: no head was sent
    usage: Any = None  # the last usage object that left, as told; None: none was told
    whole: bool = False  # every byte of the script left, and the script was not to die
    peer_gone: bool = False  # the gateway closed the connection before the end
    body_bytes: int = 0  # body bytes that the gateway's side has taken (or its kernel)


@dataclass(slots=True)
class Record:
    """Everything since the start or the last reset."""

    requests: list[Recorded] = field(default_factory=list)
    reported: list[Reported] = field(default_factory=list)
    connections: int = 0  # accepted so far
    dropped: int = 0  # requests that arrived on a connection scripted to be stale, and were not answered

    def reset(self) -> None:
        """Forgets requests and reports; connection numbers go on."""
        self.requests.clear()
        self.reported.clear()
        self.dropped = 0

    def to_json(self) -> bytes:
        """For `GET /_recorded`; bodies are base64."""
        document = {
            "requests": [
                {
                    "number": request.number,
                    "connection": request.connection,
                    "method": request.method,
                    "target": request.target,
                    "headers": request.headers,
                    "body": base64.b64encode(request.body).decode(),
                }
                for request in self.requests
            ],
            "reported": [
                {name: getattr(report, name) for name in Reported.__dataclass_fields__} for report in self.reported
            ],
            "connections": self.connections,
            "dropped": self.dropped,
        }
        return json.dumps(document).encode()


def record_from_json(text: bytes) -> Record:
    """The reverse of `to_json`, for tests whose upstream is another process."""
    document = json.loads(text)
    requests = [
        Recorded(
            number=request["number"],
            connection=request["connection"],
            method=request["method"],
            target=request["target"],
            headers=[(name, value) for name, value in request["headers"]],
            body=base64.b64decode(request["body"]),
        )
        for request in document["requests"]
    ]
    reported = [Reported(**report) for report in document["reported"]]
    return Record(requests, reported, document["connections"], document["dropped"])
