"""The command against four real processes: what an operator does all day, and what it answers to mistakes."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, OpenAI

from tests.harness.eventually import eventually_sync
from tests.harness.processes import RunningStack, run_command, running_stack, scripted_catalog
from tests.harness.upstream_process import UpstreamProcess, upstream_process
from tollgate.__main__ import main


@pytest.fixture(scope="module")
def upstream() -> Iterator[UpstreamProcess]:
    with upstream_process() as started:
        yield started


@pytest.fixture(scope="module")
def stack(upstream: UpstreamProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with running_stack(scripted_catalog(upstream.url), tmp_path_factory.mktemp("stack")) as started:
        yield started


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        assert self.status == 0, self.stderr
        document: dict[str, Any] = json.loads(self.stdout)
        return document

    @property
    def error(self) -> dict[str, Any]:
        assert self.status == 1, self.stdout
        error: dict[str, Any] = json.loads(self.stderr)["error"]
        return error


Tollgate = Callable[..., Finished]


@pytest.fixture
def tollgate(stack: RunningStack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tollgate:
    """Runs a command in this process: as a process of its own it would spend most of a second on imports."""
    for name in [name for name in os.environ if name.startswith("TOLLGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOLLGATE_COMMAND_DATA_DIR", str(stack.data_dir))

    def run(*arguments: str) -> Finished:
        monkeypatch.setattr(sys, "argv", ["tollgate", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Finished(int(ended.value.code or 0), printed.out, printed.err)

    return run


def test_the_command_is_a_program_of_its_own(stack: RunningStack) -> None:
    assert stack.tollgate("accounts", "list")["accounts"] is not None
    wrong = stack.command("accounts", "create")
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_an_account_is_found_by_id_and_by_name(tollgate: Tollgate) -> None:
    created = tollgate("accounts", "create", "found", "--json").document
    assert created["state"] == "active"
    assert created["create_time"].endswith("Z")
    assert tollgate("accounts", "show", "found", "--json").document == created
    assert tollgate("accounts", "show", created["account_id"], "--json").document == created
    assert created in tollgate("accounts", "list", "--json").document["accounts"]


def test_a_name_is_taken_once(tollgate: Tollgate) -> None:
    tollgate("accounts", "create", "twice", "--json")
    assert tollgate("accounts", "create", "twice", "--json").error["reason"] == "ACCOUNT_NAME_TAKEN"
    for_people = tollgate("accounts", "create", "twice")
    assert for_people.status == 1
    assert for_people.stderr.count("choose another name") == 1
    assert "Traceback" not in for_people.stderr


def test_a_write_with_the_same_request_id_happens_once(tollgate: Tollgate) -> None:
    tollgate("accounts", "create", "repeated")
    grant = ("credits", "grant", "repeated", "2.50", "--request-id", "grant-once", "--json")
    assert tollgate(*grant).document["posted_nanousd"] == 2_500_000_000
    assert tollgate(*grant).document["posted_nanousd"] == 2_500_000_000
    assert tollgate("balance", "repeated", "--json").document["credited_usd"] == "2.50"


def test_money_moves_exactly_and_leaves_entries(tollgate: Tollgate) -> None:
    tollgate("accounts", "create", "exact")
    tollgate("credits", "grant", "exact", "5.000000001", "--note", "invoice 7")
    tollgate("credits", "adjust", "exact", "-1.25", "--note", "a correction")
    balance = tollgate("balance", "exact", "--entries", "5", "--json").document
    assert balance["posted_nanousd"] == 3_750_000_001
    assert balance["posted_usd"] == "3.750000001"
    assert [(entry["kind"], entry["amount_usd"], entry["note"]) for entry in balance["entries"]] == [
        ("adjustment", "1.25", "a correction"),
        ("credit", "5.000000001", "invoice 7"),
    ]
    assert "3.750000001 USD" in tollgate("balance", "exact").stdout


def test_an_audit_says_what_it_checked_and_that_it_holds(tollgate: Tollgate) -> None:
    tollgate("accounts", "create", "audited")
    tollgate("credits", "grant", "audited", "1.50")
    document = tollgate("audit", "--account", "audited", "--json").document
    assert (document["accounts_checked"], document["entries_checked"]) == (1, 1)
    assert document["credited_usd"] == "1.50"
    assert document["violations"] == []
    for_people = tollgate("audit")
    assert for_people.status == 0
    assert "All holds." in for_people.stdout


def test_the_session_of_a_running_edge_is_listed_and_not_released_by_force(tollgate: Tollgate) -> None:
    (session,) = tollgate("sessions", "list", "--json").document["sessions"]
    assert session["state"] == "alive"
    assert session["spool_uuid"] in tollgate("sessions", "list").stdout
    refused = tollgate("sessions", "force", session["spool_uuid"], str(session["incarnation"]), "--json")
    assert refused.error["reason"] == "SESSION_ALIVE"
    unknown = tollgate("sessions", "force", session["spool_uuid"], str(session["incarnation"] + 1), "--json")
    assert unknown.error["reason"] == "SESSION_UNKNOWN"


def test_more_than_there_is_is_taken_only_by_force(tollgate: Tollgate) -> None:
    tollgate("accounts", "create", "forced")
    tollgate("credits", "grant", "forced", "1.00")
    tollgate("accounts", "terms", "forced", "--grace", "0")
    refused = tollgate("credits", "adjust", "forced", "-2.00", "--note", "too much", "--json")
    assert refused.error["reason"] == "INSUFFICIENT_FUNDS"
    forced = tollgate("credits", "adjust", "forced", "-2.00", "--note", "too much", "--force", "--json")
    assert forced.document["posted_usd"] == "-1.00"


@pytest.mark.parametrize("amount", ["1e3", "five", "0.0000000001", "0", "1,00"])
def test_an_amount_that_is_not_plain_is_wrong_usage(tollgate: Tollgate, amount: str) -> None:
    refused = tollgate("credits", "grant", "nobody", amount)
    assert refused.status == 2
    assert "Traceback" not in refused.stderr


def test_a_keys_secret_is_shown_once(tollgate: Tollgate) -> None:
    tollgate("accounts", "create", "once")
    create = ("keys", "create", "once", "--name", "web", "--request-id", "key-once", "--json")
    first, repeat = tollgate(*create).document, tollgate(*create).document
    assert first["secret"].startswith(first["public_prefix"])
    assert repeat["secret"] is None
    assert first["key_id"] == repeat["key_id"]
    assert first["secret"] not in tollgate("keys", "list", "once", "--json").stdout
    assert first["secret"] not in tollgate("keys", "show", first["key_id"]).stdout


def test_a_model_that_is_not_there_yet_is_noted(tollgate: Tollgate) -> None:
    tollgate("accounts", "create", "ahead")
    made = tollgate("keys", "create", "ahead", "--model", "scripted/ok", "--model", "scripted/okay", "--json")
    assert made.document["allowed_models"] == ["scripted/ok", "scripted/okay"]
    [note] = made.stderr.splitlines()
    assert "'scripted/okay'" in note
    changed = tollgate("keys", "update", made.document["key_id"], "--model", "scripted/ok", "--json")
    assert (changed.status, changed.stderr) == (0, "")


def test_the_version_is_told(tollgate: Tollgate) -> None:
    assert tollgate("--version").stdout.split() == ["tollgate", metadata.version("tollgate")]


def test_a_key_changes_only_where_it_is_told_to(tollgate: Tollgate) -> None:
    tollgate("accounts", "create", "changing")
    created = tollgate("keys", "create", "changing", "--model", "scripted/ok", "--expires", "90d", "--json").document
    assert created["scopes"] == ["inference"]
    key_id = created["key_id"]
    changed = tollgate(
        "keys",
        "update",
        key_id,
        "--all-models",
        "--scope",
        "management",
        "--log-inputs",
        "--expires",
        "never",
        "--json",
    ).document
    expected = {"allowed_models": [], "scopes": ["management"], "log_inputs": True, "expire_time": None}
    assert changed == {**{name: value for name, value in created.items() if name != "secret"}, **expected}
    revoked = tollgate("keys", "revoke", key_id, "--json").document
    assert revoked["state"] == "revoked"
    assert tollgate("keys", "update", key_id).status == 2


def test_limits_of_a_key_are_set_changed_one_by_one_and_taken_away(tollgate: Tollgate) -> None:
    tollgate("accounts", "create", "limited")
    created = tollgate("keys", "create", "limited", "--tier", "developer", "--spend-limit", "5.00", "--json").document
    assert created["limits"]["requests_per_minute"] == 60
    assert created["spend_limit"] == {"limit_nanousd": 5_000_000_000, "limit_usd": "5.00", "period": "month"}
    key_id = created["key_id"]
    changed = tollgate("keys", "update", key_id, "--tokens-per-minute", "7", "--spend-period", "day", "--json").document
    assert changed["limits"] == {
        "tier": "custom",
        "requests_per_minute": 60,
        "tokens_per_minute": 7,
        "concurrent_requests": 5,
    }
    assert changed["spend_limit"]["period"] == "day"
    assert "60 requests/min, 7 tokens/min, 5 at once (custom)" in tollgate("keys", "show", key_id).stdout
    free = (
        "--requests-per-minute",
        "0",
        "--tokens-per-minute",
        "0",
        "--concurrent-requests",
        "0",
        "--spend-limit",
        "0",
    )
    freed = tollgate("keys", "update", key_id, *free, "--json").document
    assert (freed["limits"], freed["spend_limit"]) == (None, None)
    assert tollgate("keys", "update", key_id, "--tier", "developer", "--tokens-per-minute", "7").status == 2
    assert tollgate("keys", "update", key_id, "--spend-period", "day").status == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["accounts", "show", "nobody"], "ACCOUNT_NOT_FOUND"),
        (["balance", "acct_0000000000000000000000"], "ACCOUNT_NOT_FOUND"),
        (["keys", "list", "nobody"], "ACCOUNT_NOT_FOUND"),
        (["keys", "show", "key_0000000000000000000000"], "KEY_NOT_FOUND"),
        (["models", "show", "no/such-model"], "MODEL_NOT_FOUND"),
        (["credits", "refund", "refunded", "no-such-request", "--reason", "late"], "REQUEST_NOT_FOUND"),
        (["models", "apply", "/no/such/file.yaml"], "FILE_UNREADABLE"),
    ],
)
def test_what_is_not_there_says_how_to_find_what_is(tollgate: Tollgate, arguments: list[str], reason: str) -> None:
    tollgate("accounts", "create", "refunded")
    assert tollgate(*arguments, "--json").error["reason"] == reason
    for_people = tollgate(*arguments)
    assert for_people.status == 1
    assert for_people.stderr.startswith("tollgate: ")
    assert "Traceback" not in for_people.stderr
    assert "ListKeys" not in for_people.stderr, "of gRPC, which people at a terminal do not speak"


def test_a_dry_run_shows_what_would_change_and_changes_nothing(
    tollgate: Tollgate, upstream: UpstreamProcess, tmp_path: Path
) -> None:
    before = tollgate("models", "list", "--json").document
    dearer = tmp_path / "dearer.yaml"
    dearer.write_text(scripted_catalog(upstream.url, completion_per_million="9.00"))
    dry = tollgate("models", "apply", str(dearer), "--dry-run", "--json").document
    assert dry["changes"]
    assert dry["number"] == before["number"]
    assert tollgate("models", "list", "--json").document == before
    [model] = before["models"]
    assert model["price"]["completion"] == "0.000002"
    assert [deployment["deployment_id"] for deployment in model["deployments"]] == ["scripted"]
    assert "scripted/ok" in tollgate("models", "list").stdout
    assert tollgate("models", "show", "scripted/ok").status == 0


def test_a_bad_catalog_is_refused_whole_with_its_lines(tollgate: Tollgate, tmp_path: Path) -> None:
    before = tollgate("models", "list", "--json").document
    bad = tmp_path / "bad.yaml"
    bad.write_text("models:\n  - id: free/lunch\n    context_length: 10\nmodel: 5\n")
    refused = tollgate("models", "apply", str(bad))
    assert refused.status == 1
    head, *lines = refused.stderr.splitlines()
    assert head.endswith("nothing was changed:")
    assert [line.split(":")[0] for line in lines] == ["  line 2", "  line 4"]
    assert tollgate("models", "list", "--json").document == before


def test_the_document_of_the_catalog_can_be_applied_again(tollgate: Tollgate, tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    copy.write_text(tollgate("models", "document").stdout)
    assert tollgate("models", "apply", str(copy), "--json").document["changes"] == []


def test_what_a_client_used_is_on_the_bill_to_the_token(stack: RunningStack, tollgate: Tollgate) -> None:
    tollgate("accounts", "create", "billed")
    tollgate("credits", "grant", "billed", "5.00")
    secret = tollgate("keys", "create", "billed", "--json").document["secret"]
    with OpenAI(base_url=stack.base_url, api_key=secret) as client:
        answer = client.chat.completions.create(
            model="scripted/ok", messages=[{"role": "user", "content": "one two three"}], max_tokens=50
        )
    assert answer.usage is not None
    cost_nanousd = answer.usage.prompt_tokens * 1_000 + answer.usage.completion_tokens * 2_000

    def billed() -> bool:
        charged: int = tollgate("balance", "billed", "--json").document["charged_nanousd"]
        return charged == cost_nanousd

    eventually_sync(billed, 20)
    [row] = tollgate("usage", "billed", "--by", "model", "--since", "1h", "--json").document["rows"]
    assert row["model_id"] == "scripted/ok"
    assert row["requests"] == 1
    assert row["tokens"]["prompt_tokens"] == answer.usage.prompt_tokens
    assert row["tokens"]["completion_tokens"] == answer.usage.completion_tokens
    assert row["charged_nanousd"] == cost_nanousd
    assert "scripted/ok" in tollgate("usage", "billed", "--by", "day", "--by", "model").stdout
    request_id = answer._request_id
    assert request_id
    refund = ("credits", "refund", "billed", request_id, "--reason", "too slow")
    part = tollgate(*refund, "--amount", "0.000001", "--json").document
    assert (part["refunded_nanousd"], part["request"]["refunds"][0]["reason"]) == (1000, "too slow")
    assert tollgate(*refund, "--json").document["refunded_nanousd"] == cost_nanousd
    assert tollgate(*refund, "--json").error["reason"] == "REFUND_TOO_LARGE"
    assert "Refunded" in tollgate("balance", "billed").stdout


def test_a_suspended_account_is_told_so_and_works_again_when_activated(stack: RunningStack, tollgate: Tollgate) -> None:
    tollgate("accounts", "create", "suspended")
    secret = tollgate("keys", "create", "suspended", "--json").document["secret"]
    with OpenAI(base_url=stack.base_url, api_key=secret, max_retries=0) as client:

        def status() -> int:
            try:
                return client.models.with_raw_response.list().status_code
            except APIStatusError as error:
                return error.status_code

        assert status() == 200
        assert tollgate("accounts", "suspend", "suspended", "--json").document["state"] == "suspended"
        eventually_sync(lambda: status() == 403, 5)
        tollgate("accounts", "activate", "suspended")
        eventually_sync(lambda: status() == 200, 5)


def test_where_nothing_runs_the_command_says_how_to_start_it(
    tollgate: Tollgate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOLLGATE_COMMAND_DATA_DIR", str(tmp_path))
    nothing = tollgate("accounts", "list")
    assert nothing.status == 1
    assert "tollgate up" in nothing.stderr


def test_a_service_that_does_not_answer_is_named(tollgate: Tollgate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_COMMAND_AUTH_ADDRESS", "127.0.0.1:1")
    gone = tollgate("accounts", "list", "--json").error
    assert gone["reason"] == "SERVICE_UNREACHABLE"
    assert "auth_svc" in gone["message"]
    assert "127.0.0.1:1" in gone["message"]


def test_a_span_without_use_says_so_and_one_that_ends_before_it_begins_is_wrong(tollgate: Tollgate) -> None:
    tollgate("accounts", "create", "idle")
    assert tollgate("usage", "idle").stdout == "Nothing was used.\n"
    assert tollgate("usage", "idle", "--json").document["rows"] == []
    turned = tollgate("usage", "idle", "--since", "2026-02-01", "--until", "2026-01-01")
    assert turned.status == 2
    assert "--until" in turned.stderr


def test_a_wrong_setting_of_the_command_is_named(tollgate: Tollgate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_COMMAND_AUTH_ADDRESS", "nonsense")
    unlike = tollgate("accounts", "list")
    assert unlike.status == 2
    assert "host:port" in unlike.stderr
    monkeypatch.delenv("TOLLGATE_COMMAND_AUTH_ADDRESS")
    monkeypatch.setenv("TOLLGATE_COMMAND_TIMEOUT_S", "soon")
    wrong = tollgate("accounts", "list")
    assert wrong.status == 2
    assert "TOLLGATE_COMMAND_TIMEOUT_S" in wrong.stderr


def test_a_second_stack_on_the_same_folder_is_refused(stack: RunningStack) -> None:
    second = run_command("up", "--data-dir", str(stack.data_dir), "--port", "0")
    assert second.returncode == 1
    assert stack.base_url in second.stderr
    assert stack.tollgate("models", "list")["models"], "the first one goes on"
