"""Tollgate as a target: the four real processes on SQLite, and an account that can pay for the whole bench.

Everything goes through the operator's own command, so that what is measured is what an operator runs.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.payload import MODEL, MODEL_SLOW
from bench.process import Target

_START_S_MAX = 60.0
_STOP_S_MAX = 60.0
_COMMAND_S_MAX = 60.0
_LOG_LINES_SHOWN = 40
_CREDIT_USD = "1000000"
_CREDENTIAL_VARIABLE = "TOLLGATE_BENCH_UPSTREAM_KEY"


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to set Tollgate up: what its key is created with, and settings."""

    name: str
    key_options: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


PLAIN = Variant("tollgate")
# Limits that nobody reaches here: what is measured is what keeping them costs.
LIMITED = Variant(
    "tollgate-limited",
    (
        "--requests-per-minute",
        "10000000",
        "--tokens-per-minute",
        "10000000000",
        "--concurrent-requests",
        "100000",
    ),
)
# Answers do not wait for their usage to be on disk: the difference is what durability against a power cut costs.
INTERVAL = Variant("tollgate-interval", settings={"TOLLGATE_EDGE_DURABILITY": "interval"})


@contextmanager
def tollgate(upstream: str, variant: Variant = PLAIN) -> Iterator[Target]:
    """Starts everything in a folder of its own, in front of `upstream`; ends and removes it.

    Raises:
        RuntimeError: it did not start, or a command failed; the text ends with what it last logged.
    """
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder:
        home = Path(folder)
        (home / "catalog.yaml").write_text(_catalog(upstream))
        environment = {
            **os.environ,
            **variant.settings,
            "TOLLGATE_COMMAND_DATA_DIR": str(home / "data"),
            _CREDENTIAL_VARIABLE: "upstream",
        }
        with _running(home, environment) as ready:
            pids: dict[str, int] = ready["child_pids"]
            services = [pid for name, pid in pids.items() if name != "edge"]
            # `tollgate up` itself only waits for its children, and is no part of a cluster.
            base_url = ready["base_url"].removesuffix("/v1")
            key = _paid_key(environment, variant.key_options)
            yield Target(variant.name, base_url, key, {"edge": [pids["edge"]], "services": services})


def _catalog(upstream: str) -> str:
    """A catalog document with the bench's models, priced as small ones are."""
    models, deployments = [], []
    for number, model in enumerate((MODEL, MODEL_SLOW)):
        models.append(
            f"  - id: {model}\n    context_length: 8192\n    max_output_length: 1024\n"
            "    prices:\n      - per_million: {prompt: 0.15, completion: 1.00, input_cache_read: 0.05}\n"
        )
        deployments.append(
            f"  - id: bench-{number}\n    model: {model}\n    kind: vllm\n    base_url: {upstream}/v1\n"
            f"    credential: {{env: {_CREDENTIAL_VARIABLE}}}\n"
        )
    return f"models:\n{''.join(models)}deployments:\n{''.join(deployments)}"


@contextmanager
def _running(home: Path, environment: dict[str, str]) -> Iterator[dict[str, Any]]:
    """`tollgate up` from its start to its drained end; yields what its ready file says."""
    ready_file = home / "ready.json"
    command = [sys.executable, "-m", "tollgate", "up", "--catalog", str(home / "catalog.yaml")]
    command += ["--data-dir", str(home / "data"), "--port", "0", "--ready-file", str(ready_file)]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        yield _ready(process, ready_file, home / "log")
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(process: "subprocess.Popen[bytes]", ready_file: Path, log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + _START_S_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            ready: dict[str, Any] = json.loads(ready_file.read_text())
        except (FileNotFoundError, ValueError):  # not there yet, or half written
            time.sleep(0.05)
        else:
            return ready
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
    raise RuntimeError("\n".join(["`tollgate up` did not become ready; its last lines:", *lines]))


def _paid_key(environment: dict[str, str], key_options: Sequence[str]) -> str:
    """The secret of a new key whose account will not run dry."""
    account = _text_in(_run(environment, "accounts", "create", "bench"), "account_id")
    _run(environment, "credits", "grant", account, _CREDIT_USD)
    return _text_in(_run(environment, "keys", "create", account, *key_options), "secret")


def _text_in(document: Any, name: str) -> str:
    """The text of that name, at the top or inside: `{"key": {...}, "secret": ...}` nests what it describes.

    Raises:
        RuntimeError: there is none.
    """
    groups = [document]
    while groups:
        group = groups.pop(0)
        if isinstance(group.get(name), str):
            return str(group[name])
        groups += [value for value in group.values() if isinstance(value, dict)]
    raise RuntimeError(f"the command printed no {name}, only {sorted(document)}")


def _run(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    """One operator's command, and the JSON that it prints."""
    command = [sys.executable, "-m", "tollgate", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S_MAX, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"`tollgate {' '.join(arguments)}` failed:\n{done.stdout}{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
