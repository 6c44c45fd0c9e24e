"""All processes over mutual TLS: a request is answered and billed, and goes on when every certificate is replaced."""

from pathlib import Path

import pytest

from chassis import client
from chassis.faults import PermissionDenied
from protos.client import tls
from protos.usage.v1 import usage_pb2, usage_pb2_grpc
from tests.harness.certificates import Authority, settings_of
from tests.harness.stack import MODEL, open_stack
from tests.stack.client import Client

PROCESSES = ("auth", "catalog", "usage", "edge")
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_whole_house_works_over_mutual_tls_and_the_edge_cannot_grant_credit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "CHECK_PERIOD_S", 0.0)
    folder = tmp_path / "tls"
    authority = Authority(folder)
    settings = {name: settings_of(authority.issue(name)) for name in PROCESSES}
    operator = authority.issue("operator")
    (tmp_path / "stack").mkdir()
    async with open_stack(tmp_path / "stack", settings=settings, operator=operator) as stack:
        customer = await stack.customer()
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "one two three"}]}
        assert (await Client(stack.edge_url, customer.secret).chat(asked)).status == 200
        await stack.settled(customer, 1)
        successor = Authority(folder)
        for name in (*PROCESSES, "operator"):
            successor.issue(name)
        newcomer = await stack.customer()  # the operator's next calls
        assert (await Client(stack.edge_url, newcomer.secret).chat(asked)).status == 200  # the edge's next call
        await stack.settled(newcomer, 1)
        grant = usage_pb2.GrantCreditRequest(request_id="r", account_id=customer.account_id, amount_nanousd=1)
        port = stack.processes["usage"].port
        async with client.channel(f"127.0.0.1:{port}", successor.issue("edge")) as edge:
            with pytest.raises(PermissionDenied, match="CALLER_NOT_ALLOWED"):
                await client.call(usage_pb2_grpc.UsageAdminServiceStub(edge).GrantCredit, grant, timeout_s=10)
