"""Every overlay with every combination of components is what Kubernetes and its neighbours accept."""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest

from tests.k8s import custom_resources
from tests.k8s.rendering import (
    DEV,
    EDITED,
    FULLEST,
    K8S,
    PRODUCTION,
    VERSION,
    Combination,
    Document,
    container,
    every_combination,
    of_version,
    rendered,
    workloads,
)
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


@pytest.mark.parametrize(
    ("kind", "old", "new", "fault"),
    [
        ("Certificate", '"secretName"', '"secretname"', "Certificate.spec has no secretName"),
        ("Certificate", '"ECDSA"', '"EC"', "is 'EC', none of"),
        ("Certificate", '"size": 256', '"size": "256"', "is '256', not int"),
        ("Certificate", '"2160h"', '"90 days"', "is '90 days', no duration"),
        ("Gateway", '"protocol"', '"Protocol"', "Gateway.spec has no listeners.protocol"),
        ("Gateway", '"Terminate"', '"terminate"', "is 'terminate', none of"),
        ("HTTPRoute", '"PathPrefix"', '"Prefix"', "is 'Prefix', none of"),
        ("HTTPRoute", '"port": 80', '"Port": 80', "HTTPRoute.spec has no rules.backendRefs.port"),
        ("BackendTrafficPolicy", '"ConsistentHash"', '"Hash"', "is 'Hash', none of"),
        ("BackendTrafficPolicy", '"header"', '"headerName"', "headerName is no field"),
        ("ClientTrafficPolicy", '"streamIdleTimeout": "1h"', '"streamIdleTimeout": 3600', "is 3600, no duration"),
        ("PodMonitor", '"podMetricsEndpoints"', '"endpoints"', "PodMonitor.spec.endpoints is no field"),
        ("PrometheusRule", '"expr"', '"query"', "PrometheusRule.spec has no groups.rules.expr"),
    ],
)
def test_the_checker_of_other_kinds_finds_what_such_a_kind_refuses(kind: str, old: str, new: str, fault: str) -> None:
    found = [each for each in rendered(FULLEST) if each["kind"] == kind]
    broken = [json.loads(json.dumps(each).replace(old, new)) for each in found]
    faults = [each for document in broken for each in custom_resources.faults(document)]
    assert any(fault in each for each in faults), faults


@pytest.mark.tool("kubernetes-validate")
def test_the_validator_of_kubernetes_own_kinds_refuses_a_misspelt_field(tmp_path: Path) -> None:
    (edge,) = (
        each for each in rendered(PRODUCTION) if (each["kind"], each["metadata"]["name"]) == ("Deployment", "edge")
    )
    misspelt = json.dumps(edge, default=str).replace("terminationGracePeriodSeconds", "terminationGracePeriodS")
    (tmp_path / "edge.yaml").write_text(misspelt)
    assert run("kubernetes-validate", "--strict", str(tmp_path / "edge.yaml")).returncode != 0


# What Kubernetes refuses to change in an object that is there. Of a Job, everything in its pods.
_IMMUTABLE = {
    "Deployment": ("selector",),
    "StatefulSet": ("selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy"),
    "Service": ("clusterIP",),
    "Job": ("template", "selector", "completions"),
}


@pytest.mark.parametrize("overlay", ["dev", "production"])
def test_a_new_version_is_another_image_and_other_jobs_and_nothing_that_kubernetes_refuses_to_change(
    overlay: str,
) -> None:
    before = {(each["kind"], each["metadata"]["name"]): each for each in rendered(Combination(overlay, ()))}
    after = {(each["kind"], each["metadata"]["name"]): each for each in rendered(of_version(overlay, "9.8.7"))}
    jobs = {name for kind, name in after.keys() - before.keys() if kind == "Job"}
    assert {kind for kind, _ in before.keys() ^ after.keys()} == {"Job"}
    assert jobs == ({"migrate-9.8.7", "bootstrap-9.8.7"} if overlay == "dev" else {"migrate-9.8.7"})
    for name in before.keys() & after.keys():
        for field in _IMMUTABLE.get(name[0], ()):
            assert before[name]["spec"].get(field) == after[name]["spec"].get(field), name
    images = {container(each)["image"] for each in workloads(of_version(overlay, "9.8.7")).values()}
    assert len({image for image in images if image.endswith(":9.8.7")}) == 1
    assert not any(VERSION in image for image in images)


@pytest.mark.tool("checkov")
def test_checkov_finds_nothing_but_what_we_have_reasons_for(tmp_path: Path) -> None:
    for number, combination in enumerate((DEV, PRODUCTION, FULLEST, *EDITED)):
        (tmp_path / f"{number}.yaml").write_text(json_lines(rendered(combination)))
    checked = run("checkov", "--config-file", str(K8S / ".checkov.yaml"), "--directory", str(tmp_path))
    assert checked.returncode == 0, checked.stdout
    assert "Passed checks" in checked.stdout + checked.stderr or not checked.stdout
