"""/v1/balance, /v1/usage, /v1/requests: what an account has, and what it spent it on. usage_svc sums."""

import asyncio
import csv
import io
from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import unquote

from chassis.clock import Clock
from edge.http.answer import Answer, Sent, simple_answer
from edge.http.protocol import Request
from edge.http.record import RequestRecord
from edge.management import convert, refusals, shapes
from edge.management.caller import Callers
from edge.management.parse import ID_CHARS_MAX, MODEL_ID_CHARS_MAX, Query, require_order
from edge.openai import errors
from protos.usage.v1 import usage_pb2, usage_pb2_grpc

REQUESTS_PATH = "/v1/requests"
# What is summed where `from` is left out.
USAGE_DAYS_DEFAULT = 30
_GROUPINGS: Mapping[str, usage_pb2.UsageGrouping.ValueType] = {
    "day": usage_pb2.USAGE_GROUPING_DAY,
    "hour": usage_pb2.USAGE_GROUPING_HOUR,
    "model": usage_pb2.USAGE_GROUPING_MODEL,
    "key": usage_pb2.USAGE_GROUPING_KEY,
}
_PERIODS_S = {usage_pb2.USAGE_GROUPING_DAY: 86_400, usage_pb2.USAGE_GROUPING_HOUR: 3600}
CSV_TYPE = "text/csv; charset=utf-8"
CSV_COLUMNS = (
    "start_time",
    "end_time",
    "model",
    "key_id",
    "requests",
    "errors",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cost_usd",
    "refunded_usd",
)


class Spending:
    """Handlers of what usage_svc knows of an account."""

    def __init__(self, callers: Callers, clock: Clock, usage: "usage_pb2_grpc.UsageServiceAsyncStub") -> None:
        self._callers, self._clock, self._usage = callers, clock, usage

    async def balance(self, request: Request, record: RequestRecord) -> Sent:
        """GET /v1/balance."""
        manager = await self._callers.manager(request, record)
        Query(request.query, ())
        now = self._clock.now()
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        balance, usage = await asyncio.gather(
            self._callers.call(
                self._usage.GetBalance, usage_pb2.GetBalanceRequest(account_id=manager.account_id), record
            ),
            self._callers.call(
                self._usage.QueryUsage,
                usage_pb2.QueryUsageRequest(
                    account_id=manager.account_id,
                    start_time=convert.optional_moment_to_pb(month),
                    group_by=[usage_pb2.USAGE_GROUPING_DAY],
                ),
                record,
            ),
        )
        return _sent(request, record, Answer.from_json(convert.balance_from_pb(balance.balance, usage.rows, now)))

    async def usage(self, request: Request, record: RequestRecord) -> Sent:
        """GET /v1/usage; as CSV to who accepts that and not JSON."""
        manager = await self._callers.manager(request, record)
        query = Query(request.query, ("from", "to", "group_by", "model", "key"))
        start, end = query.moment("from"), query.moment("to")
        start = self._default_start(end) if start is None else start
        require_order(start, end)
        group_by = query.choices("group_by", _GROUPINGS)
        if len(_PERIODS_S.keys() & set(group_by)) > 1:
            raise errors.invalid_request("`group_by`: give `day` or `hour`, not both.", param="group_by")
        asked = usage_pb2.QueryUsageRequest(
            account_id=manager.account_id,
            start_time=convert.optional_moment_to_pb(start),
            end_time=convert.optional_moment_to_pb(end),
            group_by=group_by,
            model_id=query.text("model", MODEL_ID_CHARS_MAX),
            key_id=query.text("key", ID_CHARS_MAX),
        )
        answer = await self._callers.call(self._usage.QueryUsage, asked, record)
        period_s = max((_PERIODS_S.get(grouping, 0) for grouping in group_by), default=0)
        listed = convert.usage_list_from_pb(answer.rows, period_s)
        if _wants_csv(request):
            whole = Answer(200, _csv(listed.data), CSV_TYPE, [("vary", "accept")])
        else:
            whole = Answer.from_json(listed)
        return _sent(request, record, whole)

    async def list_requests(self, request: Request, record: RequestRecord) -> Sent:
        """GET /v1/requests."""
        manager = await self._callers.manager(request, record)
        query = Query(request.query, ("limit", "after", "from", "to", "model", "key", "errors"))
        start, end = query.moment("from"), query.moment("to")
        require_order(start, end)
        asked = usage_pb2.ListRequestsRequest(
            account_id=manager.account_id,
            page_size=query.page_size(),
            after_request_id=query.text("after", ID_CHARS_MAX),
            start_time=convert.optional_moment_to_pb(start),
            end_time=convert.optional_moment_to_pb(end),
            model_id=query.text("model", MODEL_ID_CHARS_MAX),
            key_id=query.text("key", ID_CHARS_MAX),
            errors_only=query.flag("errors"),
        )
        answer = await self._callers.call(self._usage.ListRequests, asked, record)
        listed = [convert.request_from_pb(each) for each in answer.requests]
        page = shapes.RequestList(
            data=listed,
            first_id=listed[0].id if listed else None,
            last_id=listed[-1].id if listed else None,
            has_more=bool(answer.next_page_token),
        )
        return _sent(request, record, Answer.from_json(page))

    async def one_request(self, request: Request, record: RequestRecord) -> Sent:
        """GET /v1/requests/{id}."""
        manager = await self._callers.manager(request, record)
        Query(request.query, ())
        request_id = unquote(request.path.removeprefix(f"{REQUESTS_PATH}/"))
        if not 0 < len(request_id) <= ID_CHARS_MAX:
            raise refusals.resource_not_found()
        asked = usage_pb2.GetRequestRequest(account_id=manager.account_id, request_id=request_id)
        answer = await self._callers.call(self._usage.GetRequest, asked, record)
        return _sent(request, record, Answer.from_json(convert.request_from_pb(answer.request)))

    def _default_start(self, end: datetime | None) -> datetime:
        try:
            return (end or self._clock.now()) - timedelta(days=USAGE_DAYS_DEFAULT)
        except OverflowError:  # nothing is older
            return datetime.min.replace(tzinfo=self._clock.now().tzinfo)


def _wants_csv(request: Request) -> bool:
    accepted = [part.partition(";")[0].strip().lower() for part in request.headers.get("Accept", "").split(",")]
    return "text/csv" in accepted and "application/json" not in accepted


def _csv(rows: list[shapes.UsageRow]) -> bytes:
    """RFC 4180, with a line of headings; what the rows are not grouped by is empty."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    writer.writerows(["" if (value := getattr(row, name)) is None else value for name in CSV_COLUMNS] for row in rows)
    return text.getvalue().encode()


def _sent(request: Request, record: RequestRecord, answer: Answer) -> Sent:
    return simple_answer(request, answer, request_id=record.request_id)
