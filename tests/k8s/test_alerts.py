"""The alerts fire when they should, and ask for metrics that there are."""

import re
from pathlib import Path

import pytest
import yaml

from tests.harness.doc_tables import DOCS
from tests.k8s.rendering import FULLEST, named
from tests.k8s.tools import ROOT, run

pytestmark = pytest.mark.tool("kubectl")

RULES = "alerts.rules.yaml"
CASES = ROOT / "tests" / "k8s" / "alerts.test.yaml"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The groups of the PrometheusRule as a file of rules, beside the cases."""
    file = tmp_path / RULES
    file.write_text(yaml.safe_dump(named(FULLEST, "PrometheusRule", "tollgate")["spec"]))
    (tmp_path / "cases.yaml").write_text(CASES.read_text())
    return file


def test_every_metric_of_an_alert_is_one_of_ours() -> None:
    known = set(re.findall(r"^\| `(tollgate_\w+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    for group in named(FULLEST, "PrometheusRule", "tollgate")["spec"]["groups"]:
        for rule in group["rules"]:
            for name in re.findall(r"\btollgate_\w+", rule["expr"]):
                assert name in known, f"{rule['alert']} asks for {name}"


def test_every_alert_is_tested() -> None:
    alerts = [
        rule["alert"]
        for group in named(FULLEST, "PrometheusRule", "tollgate")["spec"]["groups"]
        for rule in group["rules"]
    ]
    tested = {
        case["alertname"] for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]
    }
    assert set(alerts) == tested


@pytest.mark.tool("promtool")
def test_promtool_accepts_the_rules(rules: Path) -> None:
    checked = run("promtool", "check", "rules", str(rules))
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.tool("promtool")
def test_every_alert_fires_and_keeps_quiet_as_its_cases_say(rules: Path) -> None:
    checked = run("promtool", "test", "rules", str(rules.with_name("cases.yaml")))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_says_what_to_do() -> None:
    for group in named(FULLEST, "PrometheusRule", "tollgate")["spec"]["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["summary"], rule["alert"]
            assert len(rule["annotations"]["description"].split()) > 5, rule["alert"]
            assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]


@pytest.mark.tool("promtool")
def test_the_cases_find_an_alert_that_never_fires_and_one_that_always_does(rules: Path) -> None:
    groups = yaml.safe_load(rules.read_text())["groups"]
    for rules_of_group, number in [(each["rules"], number) for each in groups for number in range(len(each["rules"]))]:
        rule = rules_of_group[number]
        for broken in ("vector(0) > 1", f"({rule['expr']}) or on() vector(1)"):
            rules_of_group[number] = {**rule, "expr": broken}
            rules.write_text(yaml.safe_dump({"groups": groups}))
            checked = run("promtool", "test", "rules", str(rules.with_name("cases.yaml")))
            assert checked.returncode != 0, f"{rule['alert']} as {broken}"
            assert rule["alert"] in checked.stdout + checked.stderr
        rules_of_group[number] = rule
