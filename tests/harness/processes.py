"""The four processes as `tollgate up` starts them, for tests that must see processes: real clients, crashes, restarts.

    with running_stack(scripted_catalog(upstream.url), tmp_path) as stack:
        secret = stack.create_key()                      # of a new account with 5.00 USD
        OpenAI(base_url=stack.base_url, api_key=secret)
        stack.tollgate("balance", "customer")            # the command's JSON
        stack.kill("edge")

Calls block; from async tests use `asyncio.to_thread`.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pricing.usd import nanousd_from_usd
from protos.auth.v1 import auth_pb2
from protos.usage.v1 import usage_pb2
from tests.harness.eventually import eventually_sync
from tollgate.services import Addresses, Services, new_request_id

START_S_MAX = 120.0  # two cores shared with other tests
STOP_S_MAX = 60.0
CALL_S_MAX = 30.0

ResultT = TypeVar("ResultT")


def scripted_catalog(
    upstream_url: str,
    *,
    model_id: str = "scripted/ok",
    kind: str = "openai",
    prompt_per_million: str = "1.00",
    completion_per_million: str = "2.00",
    cached_per_million: str = "0.50",
    context_length: int = 100_000,
    max_output_length: int = 4_000,
) -> str:
    """A catalog with one model, served by a scripted upstream (its root URL, without /v1)."""
    return f"""\
models:
  - id: {model_id}
    name: Scripted
    description: Does what a test says.
    context_length: {context_length}
    max_output_length: {max_output_length}
    prices:
      - per_million:
          prompt: {prompt_per_million}
          completion: {completion_per_million}
          input_cache_read: {cached_per_million}
deployments:
  - id: scripted
    model: {model_id}
    kind: {kind}
    base_url: {upstream_url}/v1
"""


class RunningStack:
    """A stack that `tollgate up` started, and its remote control."""

    def __init__(self, process: "subprocess.Popen[str]", data_dir: Path, output: Path, run: dict[str, Any]) -> None:
        self.process, self.data_dir, self.output, self.run = process, data_dir, output, run

    @property
    def base_url(self) -> str:
        """For OpenAI clients: ends in /v1."""
        url: str = self.run["base_url"]
        return url

    @property
    def root_url(self) -> str:
        """Without /v1."""
        return self.base_url.removesuffix("/v1")

    @property
    def addresses(self) -> Addresses:
        """host:port of the services."""
        return Addresses(self.run["auth_address"], self.run["catalog_address"], self.run["usage_address"])

    def ask(self, work: Callable[[Services], Awaitable[ResultT]]) -> ResultT:
        """Runs `work` against the services, in a thread and event loop of its own, so that any test may call it."""

        async def main() -> ResultT:
            async with Services(self.addresses, CALL_S_MAX) as services:
                return await work(services)

        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(lambda: asyncio.run(main())).result()

    def create_account(self, name: str = "customer", credit_usd: str = "5.00") -> str:
        """A new account with credit; its id."""

        async def work(services: Services) -> str:
            create = auth_pb2.CreateAccountRequest(request_id=new_request_id(), name=name)
            account_id = (await services.call(services.auth_admin.CreateAccount, create)).account.account_id
            if amount := nanousd_from_usd(credit_usd):
                grant = usage_pb2.GrantCreditRequest(
                    request_id=new_request_id(), account_id=account_id, amount_nanousd=amount
                )
                await services.call(services.usage_admin.GrantCredit, grant)
            return account_id

        return self.ask(work)

    def create_key(
        self, account: str | None = None, *, scopes: Sequence[str] = ("inference",), models: Sequence[str] = ()
    ) -> str:
        """A new key's secret; of the account with this name or id, or of the account "customer", made if need be."""

        async def work(services: Services) -> str:
            key = auth_pb2.Key(
                account_id=(await services.account(account or "customer")).account_id,
                name="test",
                scopes=[auth_pb2.Scope.Value(f"SCOPE_{scope.upper()}") for scope in scopes],
                allowed_models=models,
            )
            request = auth_pb2.CreateKeyRequest(request_id=new_request_id(), key=key)
            return (await services.call(services.auth_admin.CreateKey, request)).secret

        if account is None and "customer" not in self._account_names():
            self.create_account()
        return self.ask(work)

    def balance(self, account: str = "customer") -> usage_pb2.Balance:
        """Where an account stands."""

        async def work(services: Services) -> usage_pb2.Balance:
            found = await services.account(account)
            request = usage_pb2.GetBalanceRequest(account_id=found.account_id)
            return (await services.call(services.usage.GetBalance, request)).balance

        return self.ask(work)

    def tollgate(self, *arguments: str) -> dict[str, Any]:
        """What a command prints with --json; it must end well."""
        finished = self.command(*arguments, "--json")
        assert finished.returncode == 0, finished.stderr
        document: dict[str, Any] = json.loads(finished.stdout)
        return document

    def command(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Runs a command as an operator would, against this stack."""
        return run_command(*arguments, environment={"TOLLGATE_COMMAND_DATA_DIR": str(self.data_dir)}, stdin=stdin)

    def pid(self, name: str) -> int:
        """Of edge, auth_svc, catalog_svc, usage_svc or local_model."""
        pid: int = self.run["child_pids"][name]
        return pid

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to one of the processes."""
        os.kill(self.pid(name), number)

    def log(self, name: str) -> str:
        """What a process has logged since its start."""
        return (self.data_dir / "logs" / f"{name}.log").read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks the whole stack to end. Returns the exit status of `tollgate up`."""
        self.process.send_signal(number)
        return self.process.wait(STOP_S_MAX)

    def _account_names(self) -> list[str]:
        async def work(services: Services) -> list[str]:
            page = await services.call(services.auth_admin.ListAccounts, auth_pb2.ListAccountsRequest(page_size=1000))
            return [account.name for account in page.accounts]

        return self.ask(work)


@contextmanager
def running_stack(
    catalog_text: str | None,
    tmp_path: Path,
    *,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[RunningStack]:
    """Starts `tollgate up` on a data folder in `tmp_path`, waits until it serves, and ends it with all its processes.

    Used again with the same `tmp_path`, it is a second start. `environment` adds to this process's own.
    """
    with starting_stack(catalog_text, tmp_path, arguments=arguments, environment=environment) as (process, output):
        ready_file = tmp_path / "ready.json"

        def ready() -> bool:
            assert process.poll() is None or _fail(output)
            return ready_file.exists()

        eventually_sync(ready, START_S_MAX)
        yield RunningStack(process, tmp_path / "data", output, json.loads(ready_file.read_text()))


@contextmanager
def starting_stack(
    catalog_text: str | None,
    tmp_path: Path,
    *,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> "Iterator[tuple[subprocess.Popen[str], Path]]":
    """The same without waiting: for starts that must fail. Gives the process and the file of all that it prints."""
    ready_file, output = tmp_path / "ready.json", tmp_path / "up.out"
    ready_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tollgate", "up", "--data-dir", str(tmp_path / "data")]
    command += ["--ready-file", str(ready_file)]
    if "--port" not in arguments:
        command += ["--port", "0"]
    if catalog_text is not None:
        document = tmp_path / "catalog.yaml"
        document.write_text(catalog_text)
        command += ["--catalog", str(document)]
    with output.open("w") as printed:
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(environment),
            start_new_session=True,
        )
    with process:
        try:
            yield process, output
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_S_MAX)
                except subprocess.TimeoutExpired:
                    process.kill()  # its children follow: they notice that it is gone


def run_command(
    *arguments: str, environment: Mapping[str, str] | None = None, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Runs `tollgate ARGUMENTS` and waits for it."""
    return subprocess.run(
        [sys.executable, "-m", "tollgate", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=START_S_MAX,
        env=_environment(environment),
        check=False,
    )


def _environment(added: Mapping[str, str] | None) -> dict[str, str]:
    """This process's environment without settings of ours that somebody has in a shell."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOLLGATE_")}
    return {**inherited, **(added or {})}


def _fail(output: Path) -> bool:
    raise RuntimeError(f"`tollgate up` ended before it served:\n{output.read_text()}")
