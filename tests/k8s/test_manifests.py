"""The manifests and the code agree: settings, ports, times, versions, names."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from chassis.health import LIVE, READY
from chassis.settings import DatabaseSettings, documented, load
from edge.metering.settings import MeteringSettings
from edge.settings import EdgeSettings
from tests.k8s.rendering import (
    DEV,
    FULLEST,
    K8S,
    PRODUCTION,
    VERSION,
    WORKLOADS,
    Combination,
    Document,
    container,
    environment,
    every_combination,
    named,
    objects,
    pod,
    rendered,
    workloads,
)
from tests.k8s.tools import ROOT
from tollgate.processes import settings_types

pytestmark = pytest.mark.tool("kubectl")

SERVICES = ("auth", "catalog", "usage")
SERVING = ("edge", *SERVICES)
# What a Secret may hold, by the key in it, so that a whole environment can be tried out.
IN_SECRETS = {
    "auth-url": "postgresql+asyncpg://user:password@db.example.com/tollgate",
    "catalog-url": "postgresql+asyncpg://user:password@db.example.com/tollgate",
    "usage-url": "postgresql+asyncpg://user:password@db.example.com/tollgate",
    "pepper": "x" * 40,
}
CONTROL = {"toolbox": "command", "bootstrap": "command"}  # what runs the operator's command


def settings_of(component: str) -> type[BaseSettings] | None:
    """The settings that a workload's container reads; None for what is not ours."""
    return settings_types().get(CONTROL.get(component, component))


def variables(workload: Document) -> dict[str, str]:
    """The container's environment as it would be there."""
    return {
        name: value if isinstance(value, str) else IN_SECRETS[value["secretKeyRef"]["key"]]
        for name, value in environment(workload).items()
        if name.startswith("TOLLGATE_")
    }


def ours(combination: Combination) -> Iterator[tuple[str, Document, type[BaseSettings]]]:
    for component, workload in workloads(combination).items():
        if (settings := settings_of(component)) is not None:
            yield component, workload, settings


@pytest.mark.parametrize("combination", every_combination(), ids=str)
def test_every_variable_is_a_setting_of_its_process_and_the_process_would_start(
    combination: Combination, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(ours(combination))
    assert {component for component, _, _ in found} >= {*SERVING, "toolbox"}
    for component, workload, settings in found:
        told = variables(workload)
        known = {name for name, _ in documented(settings)}
        assert set(told) <= known, f"{component}: {set(told) - known} are no settings of it"
        with monkeypatch.context() as patch:
            for name, value in told.items():
                patch.setenv(name, value)
            load(settings)  # with every required one, and none that is refused


@pytest.mark.parametrize("combination", [DEV, PRODUCTION], ids=str)
def test_the_migration_knows_where_each_database_is_and_no_more(combination: Combination) -> None:
    told = set(environment(workloads(combination)["migrate"]))
    wanted = {
        f"TOLLGATE_{name.upper()}_{field}".upper() for name in SERVICES for field in DatabaseSettings.model_fields
    }
    assert told == wanted
    for name in SERVICES:
        service = environment(workloads(combination)[name])
        for field in DatabaseSettings.model_fields:
            variable = f"TOLLGATE_{name}_{field}".upper()
            assert service[variable] == environment(workloads(combination)["migrate"])[variable]


@pytest.mark.parametrize("combination", every_combination(), ids=str)
def test_nothing_secret_is_in_a_config_map_or_in_plain_text_in_a_variable(combination: Combination) -> None:
    if combination.overlay == "production":
        assert not list(objects(combination, "Secret"))
    secrets = [value for each in objects(combination, "Secret") for value in each["data"].values()]
    for each in objects(combination, "ConfigMap"):
        assert not re.search(r"password|pepper|tg_[0-9A-Za-z]{39}", yaml.safe_dump(each)), each["metadata"]["name"]
    for component, workload, settings in ours(combination):
        secret_ones = {name for name, field in documented(settings) if "SecretStr" in str(field.annotation)}
        for name, value in environment(workload).items():
            assert not (name in secret_ones and isinstance(value, str)), f"{component}: {name} stands in plain text"
            assert value not in secrets


def test_what_production_takes_from_secrets_is_in_the_readme() -> None:
    page = (K8S / "README.md").read_text()
    text = yaml.safe_dump_all(rendered(PRODUCTION))
    for name in set(re.findall(r"secretKeyRef:\n\s+key: \S+\n\s+name: (\S+)", text)):
        assert f"`{name}`" in page, name
    for name in ("tollgate-database", "tollgate-pepper"):
        assert f"secret generic {name}" in page


@pytest.mark.parametrize("combination", [DEV, PRODUCTION, FULLEST], ids=str)
def test_addresses_ports_and_selectors_meet(combination: Combination) -> None:
    pods = {
        component: (
            pod(workload)["metadata"]["labels"],
            {p["name"]: p["containerPort"] for p in container(workload).get("ports", [])},
        )
        for component, workload in workloads(combination).items()
    }
    services = {each["metadata"]["name"]: each["spec"] for each in objects(combination, "Service")}
    for name, service in services.items():
        selected = [ports for labels, ports in pods.values() if service["selector"].items() <= labels.items()]
        assert len(selected) == 1, name
        for port in service["ports"]:
            assert port["targetPort"] in selected[0], name
    for component, workload in workloads(combination).items():
        for variable, value in environment(workload).items():
            if variable.endswith("_ADDRESS"):
                host, _, port = value.partition(":")
                assert int(port) in {each["port"] for each in services[host]["ports"]}, f"{component}: {variable}"
        for variable, port_name in (("LISTEN_PORT", None), ("METRICS_PORT", "metrics"), ("HEALTH_PORT", "health")):
            told = environment(workload).get(f"TOLLGATE_{component.upper()}_{variable}")
            if told is not None:
                port_name = port_name or ("http" if component == "edge" else "grpc")
                assert int(told) == pods[component][1][port_name]
    for name in SERVICES:
        assert services[name]["clusterIP"] == "None", "gRPC balances over what DNS shows, so all pods must be in it"
    if combination.overlay == "dev":
        (catalog,) = objects(combination, "ConfigMap")
        for deployment in yaml.safe_load(catalog["data"]["catalog.yaml"])["deployments"]:
            host, port = re.fullmatch(r"http://([\w-]+):(\d+)/v1", deployment["base_url"]).groups()  # type: ignore[union-attr]
            assert int(port) in {each["port"] for each in services[host]["ports"]}


@pytest.mark.parametrize("combination", [DEV, PRODUCTION, FULLEST], ids=str)
def test_a_pod_is_given_the_time_that_its_process_takes_to_end(
    combination: Combination, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {component: (workload, settings) for component, workload, settings in ours(combination)}
    for component in SERVING:
        workload, settings = found[component]
        with monkeypatch.context() as patch:
            for name, value in variables(workload).items():
                patch.setenv(name, value)
            configured: Any = load(settings)
        needed_s = configured.drain_s
        if component == "edge":
            needed_s += configured.endpoint_lag_s + MeteringSettings(Path(), "").drain_s
            (spool,) = [
                *(
                    each["emptyDir"]["sizeLimit"]
                    for each in pod(workload)["spec"]["volumes"]
                    if each["name"] == "spool"
                ),
                *(
                    each["spec"]["resources"]["requests"]["storage"]
                    for each in workload["spec"].get("volumeClaimTemplates", [])
                ),
            ]
            assert int(spool.removesuffix("Gi")) * 1024**3 > configured.spool_bytes_max
            for hpa in objects(combination, "HorizontalPodAutoscaler"):
                if hpa["metadata"]["name"] == "edge":
                    assert hpa["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= configured.drain_s
        assert pod(workload)["spec"]["terminationGracePeriodSeconds"] >= needed_s + 10, component


@pytest.mark.parametrize("combination", [DEV, PRODUCTION], ids=str)
def test_the_three_probes_mean_what_they_should(combination: Combination) -> None:
    for name in SERVICES:
        found = container(workloads(combination)[name])
        for probe in ("startupProbe", "livenessProbe"):
            assert found[probe]["grpc"] == {"port": 9091, "service": LIVE}
        assert found["readinessProbe"]["grpc"].get("service", "") == READY
    edge = container(workloads(combination)["edge"])
    assert edge["startupProbe"]["httpGet"]["path"] == edge["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert edge["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize("combination", every_combination(), ids=str)
def test_every_pod_keeps_the_restricted_pod_security_standard(combination: Combination) -> None:
    (namespace,) = objects(combination, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for component, workload in workloads(combination).items():
        spec, context = pod(workload)["spec"], container(workload)["securityContext"]
        assert spec["securityContext"]["runAsNonRoot"] is True, component
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False, "a Service named so could set a variable that looks like a setting"
        assert {next(iter(each.keys() - {"name"})) for each in spec.get("volumes", [])} <= {
            "emptyDir",
            "secret",
            "configMap",
        }
        for resources in ("requests", "limits"):
            assert {"cpu", "memory"} <= container(workload)["resources"][resources].keys()


def test_our_images_run_as_the_user_that_the_dockerfile_names() -> None:
    (user,) = set(re.findall(r"^USER (\d+):\d+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)) - {"0"}
    for component, workload in workloads(DEV).items():
        if component != "postgres":
            assert pod(workload)["spec"]["securityContext"]["runAsUser"] == int(user), component


@pytest.mark.parametrize("overlay", ["dev", "production"])
def test_the_version_is_the_same_in_the_image_the_label_and_the_names_of_jobs(overlay: str) -> None:
    combination = Combination(overlay, ())
    for workload in workloads(combination).values():
        image = container(workload)["image"]
        if not image.startswith("postgres"):
            assert image.rpartition(":")[2] == VERSION
        assert workload["metadata"]["labels"]["app.kubernetes.io/version"] == VERSION
        assert "app.kubernetes.io/version" not in workload["spec"].get("selector", {}).get("matchLabels", {})
        if workload["kind"] == "Job":
            assert workload["metadata"]["name"].endswith(f"-{VERSION}")
    assert f"ARG VERSION={VERSION}" in (ROOT / "Dockerfile").read_text()


def test_dev_needs_no_other_image_than_ours_and_postgresql() -> None:
    images = {container(workload)["image"].partition(":")[0] for workload in workloads(DEV).values()}
    assert images == {"tollgate-dev", "postgres"}
    for workload in workloads(DEV).values():
        assert container(workload)["imagePullPolicy"] == "IfNotPresent"


def test_certificates_have_the_names_that_callers_are_known_by_and_that_services_are_called_by() -> None:
    found = {each["metadata"]["name"]: each["spec"] for each in objects(PRODUCTION, "Certificate")}
    mounted = {
        volume["secret"]["secretName"]
        for workload in workloads(PRODUCTION).values()
        for volume in pod(workload)["spec"].get("volumes", [])
        if "secret" in volume
    }
    issued = {spec["secretName"] for name, spec in found.items() if name != "tollgate-ca"}
    assert mounted - {"upstream-credentials"} == issued
    for name in (*SERVING, "operator"):
        assert found[name]["commonName"] == name
        assert name in found[name]["dnsNames"]
    for name in SERVICES:
        allowed = next(field.default for variable, field in documented(settings_types()[name]) if "CALLERS" in variable)
        for caller in set(re.findall(r"(?<=[=,])\w+", allowed)) - {"internal"}:
            assert caller in found, f"{name}_svc knows {caller} by a certificate that nobody is given"


def test_every_workload_that_waits_for_a_schema_would_wait_longer_than_the_migration() -> None:
    for name in SERVICES:
        assert float(environment(workloads(PRODUCTION)[name])[f"TOLLGATE_{name.upper()}_SCHEMA_WAIT_S"]) >= 3600


def test_every_component_is_tried_and_is_in_the_readme() -> None:
    folders = {each.name for each in (K8S / "components").iterdir()}
    page = (K8S / "README.md").read_text()
    kustomizations = "".join(
        (K8S / "overlays" / name / "kustomization.yaml").read_text() for name in ("dev", "production")
    )
    tried = {name for combination in every_combination() for name in combination.components}
    for name in folders:
        assert name in tried or f"../../components/{name}" in kustomizations, name
        assert f"`{name}`" in page, name
    assert {each["kind"] for each in workloads(FULLEST).values()} <= WORKLOADS
    assert EdgeSettings.model_fields["drain_s"].default == 600  # what comments in the manifests say


@pytest.mark.parametrize("combination", every_combination(), ids=str)
def test_behind_a_proxy_of_ours_the_edge_is_told_that_it_is(combination: Combination) -> None:
    proxied = any(objects(combination, "Ingress", "Gateway"))
    hops = environment(workloads(combination)["edge"]).get("TOLLGATE_EDGE_TRUSTED_PROXY_HOPS")
    assert hops == ("1" if proxied else None), "else all customers are one address, or one may claim any"


@pytest.mark.parametrize("combination", [PRODUCTION, FULLEST], ids=str)
def test_a_node_can_always_be_drained_one_pod_of_a_kind_at_a_time(combination: Combination) -> None:
    budgets = {each["metadata"]["name"]: each["spec"] for each in objects(combination, "PodDisruptionBudget")}
    scalers = {each["spec"]["scaleTargetRef"]["name"]: each for each in objects(combination, "HorizontalPodAutoscaler")}
    assert set(budgets) == set(SERVING)
    for name, budget in budgets.items():
        workload = workloads(combination)[name]
        fewest = scalers[name]["spec"]["minReplicas"] if name in scalers else workload["spec"]["replicas"]
        assert (name in scalers) != ("replicas" in workload["spec"]), f"{name}: an apply would undo its autoscaler"
        assert budget["maxUnavailable"] == 1
        assert fewest >= 2, f"{name}: its only pod would go with the node"
        selector = budget["selector"]["matchLabels"].items()
        assert [
            each for each in SERVING if selector <= pod(workloads(combination)[each])["metadata"]["labels"].items()
        ] == [name]
        # A spool that waits for usage_svc is worth a drain that waits, too.
        assert ("unhealthyPodEvictionPolicy" in budget) == (name != "edge")


def test_an_autoscaler_names_the_workload_that_there_is_and_its_pods_request_what_it_goes_by() -> None:
    for combination in every_combination():
        for each in objects(combination, "HorizontalPodAutoscaler"):
            target = each["spec"]["scaleTargetRef"]
            workload = named(combination, target["kind"], target["name"])
            for metric in each["spec"]["metrics"]:
                if metric["type"] == "Resource":
                    assert metric["resource"]["name"] == "cpu", (
                        "memory does not fall with load, so it would never scale down"
                    )
                    assert "cpu" in container(workload)["resources"]["requests"]


@pytest.mark.parametrize("combination", [DEV, PRODUCTION], ids=str)
def test_services_names_lead_to_ready_pods_only(combination: Combination) -> None:
    for each in objects(combination, "Service"):
        assert not each["spec"].get("publishNotReadyAddresses"), each["metadata"]["name"]


def test_the_readme_names_what_there_is() -> None:
    page = (K8S / "README.md").read_text()
    code = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    there = {
        (each["kind"].lower(), each["metadata"]["name"])
        for each in (*rendered(DEV), *rendered(PRODUCTION), *rendered(FULLEST))
    }
    named_ones = set(re.findall(r"\b(deployment|job|service|statefulset)/([\w.-]+)", code))
    assert len(named_ones) >= 6
    assert named_ones <= there, named_ones - there
    for path in set(re.findall(r"k8s/[\w./-]+", code)) - {"k8s/overlays/mine"}:
        assert (ROOT / path).exists(), path
    versions = set(re.findall(r"(?:tollgate|tollgate-dev|migrate|bootstrap)[:-](\d+\.\d+\.\d+)", page))
    assert versions == {VERSION}
