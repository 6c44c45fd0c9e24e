"""Who runs the plant: applies the catalog, makes customers, puts money in, and asks the auditor."""

import asyncio
import time
from typing import Any

from chassis.faults import Fault as Refusal
from protos.auth.v1 import auth_pb2
from protos.catalog.v1 import catalog_pb2
from protos.usage.v1 import usage_pb2
from tests.torture.customers import Customer
from tests.torture.plant import CATALOG, Plant
from tollgate.failure import CommandFailed
from tollgate.services import Addresses, Services, new_request_id

CANNOT_ASK = (Refusal, CommandFailed)
_CALL_S_MAX = 10.0
_AGAIN_S, _DONE_S_MAX = 0.2, 180.0


class Operator:
    """`credits_nanousd`: what was put into each account, for as long as the block lasts."""

    def __init__(self, plant: Plant) -> None:
        ports = [plant.links[f"operator-{service}"].port for service in ("auth", "catalog", "usage")]
        self._services = Services(Addresses(*(f"127.0.0.1:{port}" for port in ports)), _CALL_S_MAX)
        self.credits_nanousd: dict[str, int] = {}

    async def __aenter__(self) -> "Operator":
        await self._services.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._services.__aexit__(None, None, None)

    async def apply_catalog(self, upstream_url: str) -> None:
        document = catalog_pb2.ApplyDocumentRequest(
            request_id=new_request_id(), document=CATALOG.format(url=upstream_url)
        )
        await self._ask(self._services.catalog_admin.ApplyDocument, document)

    async def new_customer(self, name: str, credit_nanousd: int, grace_nanousd: int | None = None) -> Customer:
        """An account with a key; with the usual grace if none is given."""
        services = self._services
        create = auth_pb2.CreateAccountRequest(request_id=new_request_id(), name=name)
        account_id = (await self._ask(services.auth_admin.CreateAccount, create)).account.account_id
        key = auth_pb2.Key(account_id=account_id, name="key", scopes=[auth_pb2.SCOPE_INFERENCE])
        made = await self._ask(
            services.auth_admin.CreateKey, auth_pb2.CreateKeyRequest(request_id=new_request_id(), key=key)
        )
        await self.credit(account_id, credit_nanousd)
        if grace_nanousd is not None:
            terms = usage_pb2.SetTermsRequest(
                request_id=new_request_id(), account_id=account_id, grace_nanousd=grace_nanousd
            )
            await self._ask(services.usage_admin.SetTerms, terms)
        return Customer(account_id, made.secret)

    async def credit(self, account_id: str, amount_nanousd: int) -> None:
        request = usage_pb2.GrantCreditRequest(
            request_id=new_request_id(), account_id=account_id, amount_nanousd=amount_nanousd
        )
        await self._ask(self._services.usage_admin.GrantCredit, request)
        self.credits_nanousd[account_id] = self.credits_nanousd.get(account_id, 0) + amount_nanousd

    async def balance(self, account_id: str) -> usage_pb2.Balance:
        request = usage_pb2.GetBalanceRequest(account_id=account_id)
        answer: usage_pb2.GetBalanceResponse = await self._ask(self._services.usage.GetBalance, request)
        return answer.balance

    async def _ask(self, method: Any, request: Any) -> Any:
        """Until it is done, with the same request id, as an operator's system would."""
        deadline = time.monotonic() + _DONE_S_MAX
        while True:
            try:
                return await self._services.call(method, request)
            except CANNOT_ASK:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_AGAIN_S)

    async def audit(self) -> list[str]:
        """What usage_svc finds wrong when it replays its ledger."""
        answer: usage_pb2.AuditLedgerResponse = await self._services.call(
            self._services.usage_admin.AuditLedger, usage_pb2.AuditLedgerRequest()
        )
        return [f"the auditor says of {each.subject}: {each.invariant} {each.message}" for each in answer.violations]
