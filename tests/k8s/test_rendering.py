"""Every overlay with every combination of components is what Kubernetes and its neighbours accept."""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest

from tests.k8s import custom_resources
from tests.k8s.rendering import DEV, FULLEST, K8S, PRODUCTION, Combination, Document, every_combination, rendered
from tests.k8s.tools import run

pytestmark = pytest.mark.tool("kubectl")


def distinct() -> list[Document]:
    """Every object that any combination has, once."""
    every = chain.from_iterable(rendered(combination) for combination in every_combination())
    return list({json.dumps(each, default=str): each for each in every}.values())


def json_lines(documents: Sequence[Document]) -> str:
    """As YAML, which JSON is, and faster to write."""
    return "\n---\n".join(json.dumps(each, default=str) for each in documents)


@pytest.mark.parametrize("combination", every_combination(), ids=str)
def test_a_combination_renders_and_each_object_is_in_it_once_and_in_the_namespace(combination: Combination) -> None:
    found = rendered(combination)
    names = [(each["apiVersion"], each["kind"], each["metadata"]["name"]) for each in found]
    assert len(names) == len(set(names))
    for each in found:
        if each["kind"] not in ("Namespace", "PriorityClass"):
            assert each["metadata"]["namespace"] == "tollgate", each["metadata"]["name"]


@pytest.mark.tool("kubernetes-validate")
def test_every_object_of_kubernetes_own_kinds_fits_its_schema_strictly(tmp_path: Path) -> None:
    own = [each for each in distinct() if not custom_resources.is_custom(each)]
    (tmp_path / "all.yaml").write_text(json_lines(own))
    checked = run("kubernetes-validate", "--strict", str(tmp_path / "all.yaml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert (checked.stdout + checked.stderr).count(" passed ") == len(own)


def test_every_object_of_other_kinds_has_fields_that_those_kinds_have() -> None:
    custom = [each for each in distinct() if custom_resources.is_custom(each)]
    assert {each["kind"] for each in custom} == {kind for _, kind in custom_resources.FIELDS}
    assert [fault for each in custom for fault in custom_resources.faults(each)] == []


def test_the_checker_of_other_kinds_finds_a_misspelt_field_at_any_depth() -> None:
    (route,) = (each for each in rendered(FULLEST) if each["kind"] == "HTTPRoute")
    misspelt = json.loads(json.dumps(route).replace("backendRequest", "backendTimeout"))
    assert custom_resources.faults(misspelt) == ["HTTPRoute.spec.rules[0].timeouts.backendTimeout is no field"]
    assert custom_resources.faults({**route, "kind": "Route"}) != []


@pytest.mark.tool("checkov")
def test_checkov_finds_nothing_but_what_we_have_reasons_for(tmp_path: Path) -> None:
    for combination in (DEV, PRODUCTION, FULLEST, Combination("production", ("ingress-nginx",))):
        (tmp_path / f"{combination}.yaml").write_text(json_lines(rendered(combination)))
    checked = run("checkov", "--config-file", str(K8S / ".checkov.yaml"), "--directory", str(tmp_path))
    assert checked.returncode == 0, checked.stdout
    assert "Passed checks" in checked.stdout + checked.stderr or not checked.stdout
