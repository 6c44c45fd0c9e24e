"""/v1/logs: what an account's keys had kept of inputs and outputs. usage_svc keeps, expires and deletes."""

import base64
from typing import Any
from urllib.parse import unquote

from edge.http.answer import Answer, Sent, simple_answer
from edge.http.protocol import Request
from edge.http.record import RequestRecord
from edge.management import convert, log_shapes, refusals
from edge.management.caller import Callers
from edge.management.parse import ID_CHARS_MAX, MODEL_ID_CHARS_MAX, Query, require_order
from edge.openai import errors
from protos.usage.v1 import usage_pb2, usage_pb2_grpc

LOGS_PATH = "/v1/logs"


class Logs:
    """Handlers of /v1/logs and what is below it."""

    def __init__(self, callers: Callers, logs: "usage_pb2_grpc.LogServiceAsyncStub") -> None:
        self._callers, self._logs = callers, logs

    async def list_logs(self, request: Request, record: RequestRecord) -> Sent:
        """GET /v1/logs."""
        manager = await self._callers.manager(request, record)
        query = Query(request.query, ("limit", "after", "from", "to", "model", "key"))
        start, end = query.moment("from"), query.moment("to")
        require_order(start, end)
        asked = usage_pb2.ListLogsRequest(
            account_id=manager.account_id,
            page_size=query.page_size(),
            after_request_id=query.text("after", ID_CHARS_MAX),
            start_time=convert.optional_moment_to_pb(start),
            end_time=convert.optional_moment_to_pb(end),
            model_id=query.text("model", MODEL_ID_CHARS_MAX),
            key_id=query.text("key", ID_CHARS_MAX),
        )
        answer = await self._callers.call(self._logs.ListLogs, asked, record)
        listed = [log_shapes.LogSummary(**_summary(each)) for each in answer.logs]
        page = log_shapes.LogList(
            data=listed,
            first_id=listed[0].id if listed else None,
            last_id=listed[-1].id if listed else None,
            has_more=bool(answer.next_page_token),
        )
        return _sent(request, record, page)

    async def one_log(self, request: Request, record: RequestRecord) -> Sent:
        """GET /v1/logs/{id}."""
        manager = await self._callers.manager(request, record)
        Query(request.query, ())
        asked = usage_pb2.GetLogRequest(account_id=manager.account_id, request_id=_log_id(request))
        log = (await self._callers.call(self._logs.GetLog, asked, record)).log
        shown = log_shapes.Log(
            **_summary(log),
            input=_body(log.input, truncated=log.input_truncated) if log.HasField("input") else None,
            output=_body(log.output, truncated=log.output_truncated) if log.HasField("output") else None,
            output_raw=_body(log.output_raw, truncated=log.output_raw_truncated)
            if log.HasField("output_raw")
            else None,
        )
        return _sent(request, record, shown)

    async def delete_log(self, request: Request, record: RequestRecord) -> Sent:
        """DELETE /v1/logs/{id}."""
        manager = await self._callers.manager(request, record)
        Query(request.query, ())
        asked = usage_pb2.DeleteLogRequest(account_id=manager.account_id, request_id=_log_id(request))
        await self._callers.call(self._logs.DeleteLog, asked, record)
        return _sent(request, record, log_shapes.LogDeleted(asked.request_id))

    async def delete_logs(self, request: Request, record: RequestRecord) -> Sent:
        """DELETE /v1/logs, of a time: nobody means all who forgets to say which."""
        manager = await self._callers.manager(request, record)
        query = Query(request.query, ("from", "to"))
        start, end = query.moment("from"), query.moment("to")
        if start is None and end is None:
            raise errors.invalid_request(
                "Give `from`, `to` or both; `from=0` deletes every log of the account.", param="from"
            )
        require_order(start, end)
        asked = usage_pb2.DeleteLogsRequest(
            account_id=manager.account_id,
            start_time=convert.optional_moment_to_pb(start),
            end_time=convert.optional_moment_to_pb(end),
        )
        answer = await self._callers.call(self._logs.DeleteLogs, asked, record)
        return _sent(request, record, log_shapes.LogsDeleted(answer.deleted))


def _log_id(request: Request) -> str:
    log_id = unquote(request.path.removeprefix(f"{LOGS_PATH}/"))
    if not 0 < len(log_id) <= ID_CHARS_MAX:
        raise refusals.resource_not_found()
    return log_id


def _summary(log: usage_pb2.Log) -> dict[str, Any]:
    return {
        "id": log.request_id,
        "created_at": log.end_time.seconds,
        "expires_at": log.expire_time.seconds,
        "endpoint": convert.ENDPOINTS.get(log.resource, ""),
        "model": log.model_id,
        "key_id": log.key_id,
        "status": log.status_code,
        "streamed": log.streamed,
        "has_input": log.HasField("input"),
        "has_output": log.HasField("output"),
        "has_output_raw": log.HasField("output_raw"),
        "input_bytes": log.input_bytes,
        "output_bytes": log.output_bytes,
    }


def _body(content: bytes, *, truncated: bool) -> log_shapes.LogBody:
    try:
        return log_shapes.LogBody(content.decode(), "utf-8", truncated)
    except UnicodeDecodeError as error:
        if truncated and error.reason == "unexpected end of data":  # it was cut within a character
            return log_shapes.LogBody(content[: error.start].decode(), "utf-8", truncated)
    return log_shapes.LogBody(base64.b64encode(content).decode(), "base64", truncated)


def _sent(request: Request, record: RequestRecord, shape: object) -> Sent:
    return simple_answer(request, Answer.from_json(shape), request_id=record.request_id)
