"""The JSON of /v1/logs, as types."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from edge.management.shapes import UnixSeconds

RequestId = Annotated[str, Meta(description="The `x-request-id` of its answer.")]


class LogBody(Struct):
    """A body as it was, or its beginning. It is data: nothing in it was cleaned or escaped."""

    content: str
    encoding: Annotated[
        Literal["utf-8", "base64"], Meta(description="`base64` for what is not text in UTF-8, else the text itself.")
    ]
    truncated: Annotated[bool, Meta(description="Whether something is left out.")]


class LogSummary(Struct):
    """What is kept of a request, without the bodies."""

    id: RequestId
    created_at: Annotated[UnixSeconds, Meta(description="When the request ended.")]
    expires_at: UnixSeconds
    endpoint: str
    model: str
    key_id: str
    status: Annotated[int, Meta(description="The HTTP status that the client got.")]
    streamed: bool
    has_input: bool
    has_output: bool
    has_output_raw: bool
    input_bytes: Annotated[int, Meta(description="Size of the whole request body.")]
    output_bytes: Annotated[int, Meta(description="Size of the whole answer.")]
    object: Literal["log"] = "log"


class Log(LogSummary):
    """What is kept of a request. A stream's `output` is the one JSON answer that it stands for, `output_raw` the stream
    itself as the client got it."""

    input: LogBody | None = None
    output: LogBody | None = None
    output_raw: LogBody | None = None


class LogList(Struct):
    """Logs, newest first."""

    data: list[LogSummary]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class LogDeleted(Struct):
    """A log that is gone."""

    id: str
    deleted: bool = True
    object: Literal["log.deleted"] = "log.deleted"


class LogsDeleted(Struct):
    """How many logs are gone."""

    deleted: int
    object: Literal["logs.deleted"] = "logs.deleted"
