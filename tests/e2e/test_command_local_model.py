"""What a newcomer sees: `tollgate up --local-model`, and everything that it prints, pasted as it stands."""

import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from openai import OpenAI

from tests.harness.eventually import eventually_sync
from tests.harness.processes import RunningStack, running_stack
from tollgate.demo import ACCOUNT_NAME
from tollgate.local_model import MODEL_ID, weights

pytestmark = pytest.mark.skipif(
    weights() is None, reason="no weights here: `tollgate local-model --install` brings them"
)

_ANSWER_S_MAX = 120.0
_FIVE_USD = 5_000_000_000


def test_what_make_run_prints_works_as_it_stands_and_lasts(tmp_path: Path) -> None:
    with running_stack(None, tmp_path, arguments=["--local-model"]) as stack:
        printed = stack.output.read_text()
        secret = re.search(r"\btg_[0-9A-Za-z]+", printed)
        assert secret is not None
        assert stack.tollgate("balance", ACCOUNT_NAME)["posted_nanousd"] == _FIVE_USD
        if shutil.which("curl"):
            assert '"usage"' in _run(["sh", "-c", _between(printed, "KEY=", "\n\nThe same")])
        snippet = _between(printed, "from openai import OpenAI", "\n\nWhat that cost")
        assert "CompletionUsage(" in _run([sys.executable, "-c", snippet])
        _listed_are_only_live_models(stack, secret[0])
        console = re.search(r"console +(http://\S+)\n +sign in with (tg_\w+)", printed)
        assert console is not None
        assert b"<!doctype html>" in _got(console[1]).lower()
        balance = _got(f"{stack.base_url}/balance", console[2])
        assert b"balance_usd" in balance, balance
        eventually_sync(lambda: stack.balance(ACCOUNT_NAME).charged_nanousd > 0, 30)
        balance_command = _between(printed, "What that cost\n", "\n")
        assert "USD" in _run(["sh", "-c", balance_command])
        before = stack.balance(ACCOUNT_NAME)
        assert stack.stop() == 0

    with running_stack(None, tmp_path, arguments=["--local-model"]) as stack:
        printed = stack.output.read_text()
        assert "tg_" not in printed, "a secret is shown once"
        assert "keys create demo" in printed
        assert stack.balance(ACCOUNT_NAME).posted_nanousd == before.posted_nanousd
        assert stack.balance(ACCOUNT_NAME).credited_nanousd == before.credited_nanousd
        _listed_are_only_live_models(stack, secret[0])


def _got(url: str, key: str = "") -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def _listed_are_only_live_models(stack: RunningStack, secret: str) -> None:
    with OpenAI(base_url=stack.base_url, api_key=secret) as client:
        assert [model.id for model in client.models.list()] == [MODEL_ID]
    assert len(stack.tollgate("models", "list")["models"]) > 1


def _between(text: str, start: str, end: str) -> str:
    """From `start`, which is part of it unless it ends a line, to before `end`."""
    begin = text.index(start) + (len(start) if start.endswith("\n") else 0)
    return text[begin : text.index(end, begin)]


def _run(command: list[str]) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S_MAX, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout
