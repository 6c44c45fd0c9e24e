"""Who manages: every request of this API begins here."""

from collections import Counter
from typing import Any, TypeVar

import grpc

from chassis.client import call
from chassis.faults import Fault
from edge.access.bearer import grant_of
from edge.access.key_cache import Grant, KeyCache
from edge.http.protocol import Request
from edge.http.record import RequestRecord
from edge.limits.addresses import Addresses
from edge.management.faults import RETRY_AFTER_S, request_error
from edge.openai import errors

ResponseT = TypeVar("ResponseT")


# Calls at once for one account: its questions may be dear to answer, and must not keep the services from all others.
CALLS_PER_ACCOUNT_MAX = 10


class Callers:
    """Knows the keys, and calls services for those who hold one with the management scope."""

    def __init__(self, keys: KeyCache, addresses: Addresses, rpc_timeout_s: float) -> None:
        self._keys, self._addresses, self._rpc_timeout_s = keys, addresses, rpc_timeout_s
        self._open_calls: Counter[str] = Counter()

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
            RequestError: what the service refused, 429 where the account has too many calls open, or 503 where the
                service cannot be asked.
        """
        account_id = record.account_id
        if self._open_calls[account_id] >= CALLS_PER_ACCOUNT_MAX:
            raise errors.rate_limited(
                f"At most {CALLS_PER_ACCOUNT_MAX} questions of one account are answered at once.", RETRY_AFTER_S
            )
        self._open_calls[account_id] += 1
        try:
            return await call(method, request, timeout_s=self._rpc_timeout_s, request_id=record.request_id)
        except Fault as fault:
            raise request_error(fault) from None
        finally:
            self._open_calls[account_id] -= 1
            if not self._open_calls[account_id]:
                del self._open_calls[account_id]
