"""Hears from usage_svc, while a session lasts, whose idle funds are wanted back and who has funds again."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

from chassis.client import watch
from chassis.faults import Fault, Unimplemented
from chassis.log import logger
from edge.metering.settings import MeteringSettings
from protos.usage.v1 import usage_pb2, usage_pb2_grpc

_RETRY_S_MIN, _RETRY_S_MAX = 0.2, 5.0

_log = logger(__name__)


class RecallWatch:
    """One task. Metering works without what it hears, only slower to notice that funds came or are wanted."""

    def __init__(
        self,
        stub: "usage_pb2_grpc.MeteringServiceAsyncStub",
        settings: MeteringSettings,
        on_recalled: Callable[[str, str], None],
        on_funds: Callable[[str], None],
    ) -> None:
        self._stub, self._settings = stub, settings
        self._on_recalled, self._on_funds = on_recalled, on_funds
        self._session: usage_pb2.Session | None = None
        self._changed = asyncio.Event()
        self.stands = False  # the stream of the present session is open

    def use(self, session: usage_pb2.Session) -> None:
        """Watches for another session from now on."""
        self._session = session
        self._changed.set()

    async def run(self) -> None:
        """For ever; or until usage_svc says that it has nothing to tell."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            following = asyncio.ensure_future(self._follow())
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait([following, changed], return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    following.result()  # a bug of ours goes to the supervisor: recall never just stops
            finally:
                following.cancel()
                changed.cancel()
                await asyncio.gather(following, changed, return_exceptions=True)
                self.stands = False

    async def _follow(self) -> None:
        retry_s = _RETRY_S_MIN
        while True:
            try:
                async for message in self._messages():
                    self.stands = True
                    retry_s = _RETRY_S_MIN
                    self._hear(message)
            except Unimplemented:
                return
            except (Fault, TimeoutError) as error:
                _log.info("not hearing of recalls", error=str(error))
            self.stands = False
            await asyncio.sleep(retry_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
            retry_s = min(retry_s * 2, _RETRY_S_MAX)

    def _messages(self) -> AsyncIterator[usage_pb2.RecallResponse]:
        # Silence is usual: a connection that died is noticed by the channel's keep-alive.
        return watch(
            self._stub.Recall,
            usage_pb2.RecallRequest(session=self._session),
            first_timeout_s=self._settings.rpc_timeout_s,
            silence_s=lambda _: float("inf"),
        )

    def _hear(self, message: usage_pb2.RecallResponse) -> None:
        if message.WhichOneof("message") == "lease_id":
            self._on_recalled(message.account_id, message.lease_id)
        elif message.credited_account_id:
            self._on_funds(message.credited_account_id)
