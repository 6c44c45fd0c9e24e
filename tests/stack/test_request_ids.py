"""One id for a request, from its HTTP answer to the logs of the services that were asked on its behalf."""

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from chassis import secret_token
from tests.harness.stack import MODEL, Stack
from tests.stack.client import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "one two three"}]}


async def test_what_auth_svc_and_usage_svc_log_of_a_request_has_the_id_of_its_answer(stack: Stack) -> None:
    stranger = Client(stack.edge_url, secret_token.make("tg_", bytes(24)))
    with capture_logs(processors=[merge_contextvars]) as logged:
        refused = await stranger.chat(ASKED)
    assert refused.status == 401
    [line] = [line for line in logged if line["event"] == "call refused"]
    assert line["request_id"] == refused.header("x-request-id")
    customer = await stack.customer()
    with capture_logs(processors=[merge_contextvars]) as logged:
        answered = await Client(stack.edge_url, customer.secret).chat(ASKED)
    assert answered.status == 200
    calls = {line["method"].rpartition("/")[2]: line.get("request_id") for line in logged if line["event"] == "call"}
    assert calls["Authenticate"] == calls["Acquire"] == answered.header("x-request-id")
