"""Who manages: every request of this API begins here."""

from typing import Any, TypeVar

import grpc

from chassis.client import call
from chassis.faults import Fault
from edge.access.bearer import grant_of
from edge.access.key_cache import Grant, KeyCache
from edge.http.protocol import Request
from edge.http.record import RequestRecord
from edge.limits.addresses import Addresses
from edge.management.faults import request_error
from edge.openai import errors

ResponseT = TypeVar("ResponseT")


class Callers:
    """Knows the keys, and calls services for those who hold one with the management scope."""

    def __init__(self, keys: KeyCache, addresses: Addresses, rpc_timeout_s: float) -> None:
        self._keys, self._addresses, self._rpc_timeout_s = keys, addresses, rpc_timeout_s

    async def manager(self, request: Request, record: RequestRecord) -> Grant:
        """The key that asks.

        Raises:
            RequestError: 401 for whatever is not a working key, 403 for one that cannot manage, 429 where its address
                has tried too many, 503 when that cannot be found out.
        """
        grant = await grant_of(request, self._keys, self._addresses, record.request_id)
        record.account_id, record.key_prefix = grant.account_id, grant.public_prefix
        if not grant.active:
            raise errors.permission_denied("This account is suspended. Contact the operator of this service.")
        if not grant.may_manage:
            raise errors.permission_denied(
                "This API key cannot manage the account. Use a key with the `management` scope."
            )
        return grant

    async def call(
        self, method: "grpc.aio.UnaryUnaryMultiCallable[Any, ResponseT]", request: Any, record: RequestRecord
    ) -> ResponseT:
        """One call on behalf of a request, with a deadline.

        Raises:
            RequestError: what the service refused, or 503 where it cannot be asked.
        """
        try:
            return await call(method, request, timeout_s=self._rpc_timeout_s, request_id=record.request_id)
        except Fault as fault:
            raise request_error(fault) from None
