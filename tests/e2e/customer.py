"""A customer of a running stack: an account with its key, the real OpenAI clients, and the bill that it must get."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from protos.usage.v1 import usage_pb2 as pb
from tests.harness.eventually import eventually_sync
from tests.harness.processes import RunningStack
from tests.harness.upstream_process import UpstreamProcess
from tollgate.services import Services, new_request_id

MODEL = "scripted/ok"
IMPATIENT = "tests/impatient"  # gives its server half a second
UNREACHABLE = "tests/unreachable"
SETTLED_S_MAX = 20.0  # from an answer's last byte to the ledger, with two cores under load

# nano-USD per token; of every model of `catalog`.
PROMPT, CACHED, COMPLETION = 1_000, 500, 2_000
ONE_TWO_THREE_NANOUSD = 3 * PROMPT + 5 * COMPLETION  # the scripted upstream's own answer to three words


@dataclass(frozen=True, slots=True)
class Customer:
    """Whom a test calls as."""

    stack: RunningStack
    account_id: str
    secret: str

    def client(self, **options: Any) -> OpenAI:
        """openai-python's. It does not repeat anything, unless `max_retries` says so."""
        return OpenAI(**{"base_url": self.stack.base_url, "api_key": self.secret, "max_retries": 0, **options})

    def async_client(self, **options: Any) -> AsyncOpenAI:
        return AsyncOpenAI(**{"base_url": self.stack.base_url, "api_key": self.secret, "max_retries": 0, **options})

    def requests(self) -> list[pb.RequestSummary]:
        """What usage_svc has of this account, up to a thousand."""

        async def work(services: Services) -> list[pb.RequestSummary]:
            request = pb.ListRequestsRequest(account_id=self.account_id, page_size=1000)
            return list((await services.call(services.usage.ListRequests, request)).requests)

        return self.stack.ask(work)

    def settled(self, count: int) -> list[pb.RequestSummary]:
        """The account's requests, once so many are recorded; fails if there are more."""

        def recorded() -> list[pb.RequestSummary]:
            found = self.requests()
            assert len(found) >= count, f"{len(found)} of {count} requests are recorded"
            return found

        found = eventually_sync(recorded, SETTLED_S_MAX)
        assert len(found) == count, f"{len(found)} requests are recorded, not {count}"
        return found

    def is_billed(self, nanousd: int, *, requests: int = 1) -> None:
        """Waits until so many requests are recorded; they and the balance must amount to exactly this."""
        found = self.settled(requests)
        assert sum(each.charged_nanousd for each in found) == nanousd
        balance = self.stack.balance(self.account_id)
        assert balance.charged_nanousd == nanousd
        assert balance.posted_nanousd == balance.credited_nanousd - nanousd

    def set_grace(self, nanousd: int) -> None:
        """How far below zero the account may go."""

        async def work(services: Services) -> None:
            request = pb.SetTermsRequest(request_id=new_request_id(), account_id=self.account_id, grace_nanousd=nanousd)
            await services.call(services.usage_admin.SetTerms, request)

        self.stack.ask(work)


def new_customer(
    stack: RunningStack,
    *,
    credit_usd: str = "5.00",
    scopes: Sequence[str] = ("inference",),
    models: Sequence[str] = (),
) -> Customer:
    """A new account with credit, and a key of it."""
    account_id = stack.create_account(f"customer {new_request_id()}", credit_usd)
    return Customer(stack, account_id, stack.create_key(account_id, scopes=scopes, models=models))


def words(text: str = "one two three") -> list[ChatCompletionMessageParam]:
    """A conversation of one message: as many prompt tokens as it has words."""
    return [{"role": "user", "content": text}]


def reported_cost_nanousd(upstream: UpstreamProcess) -> int:
    """What everything that the upstream reported since its reset costs."""
    return sum(cost_nanousd(report.usage) for report in upstream.record().reported)


def cost_nanousd(usage: Any) -> int:
    """What usage costs, as the wire has it in chat or Responses; None costs nothing."""
    if usage is None:
        return 0
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    completion = usage.get("completion_tokens", usage.get("output_tokens"))
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    cached = details.get("cached_tokens", 0)
    return int((prompt - cached) * PROMPT + cached * CACHED + completion * COMPLETION)


def catalog(upstream_url: str) -> str:
    """Three models at one price; `upstream_url` is a root, without /v1."""
    deployments = {
        MODEL: f"base_url: {upstream_url}/v1",
        IMPATIENT: f"base_url: {upstream_url}/v1\n    first_byte_timeout_s: 0.5",
        UNREACHABLE: "base_url: http://127.0.0.1:9/v1",  # discard: nothing listens there
    }
    models = "".join(
        f"""\
  - id: {model_id}
    name: {model_id}
    context_length: 100000
    max_output_length: 4000
    prices:
      - per_million: {{prompt: 1.00, completion: 2.00, input_cache_read: 0.50}}
"""
        for model_id in deployments
    )
    served = "".join(
        f"  - id: {model_id.partition('/')[2]}\n    model: {model_id}\n    kind: openai\n    {deployment}\n"
        for model_id, deployment in deployments.items()
    )
    return f"models:\n{models}deployments:\n{served}"
