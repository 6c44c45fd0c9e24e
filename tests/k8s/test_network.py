"""The network policies of production let through what our processes need, in both directions, and nothing else."""

import pytest

from tests.k8s.network import Peer, allows
from tests.k8s.rendering import FULLEST, PRODUCTION, Combination, container, environment, named, objects, pod, workloads

pytestmark = [
    pytest.mark.tool("kubectl"),
    pytest.mark.parametrize("combination", [PRODUCTION, FULLEST], ids=str),
]

SERVICES = ("auth", "catalog", "usage")
DATABASE = Peer(address="203.0.113.5")
INTERNET = Peer(address="198.51.100.7")
METADATA_SERVICE = Peer(address="169.254.169.254")
DNS = Peer(namespace="kube-system", labels={"k8s-app": "kube-dns"})
PROMETHEUS = Peer(namespace="monitoring")
INGRESS = Peer(namespace="ingress-nginx")
CALLER = Peer(namespace="billing", namespace_labels={"tollgate/callers": "true"})
MODEL_SERVER = Peer(namespace="models", namespace_labels={"tollgate/upstreams": "true"})
STRANGER = Peer(namespace="somewhere")
NEIGHBOUR = Peer(labels={"app.kubernetes.io/name": "something-else"})


def peers(combination: Combination) -> dict[str, Peer]:
    """A pod of each workload."""
    return {
        component: Peer(
            labels=pod(workload)["metadata"]["labels"],
            ports={port["name"]: port["containerPort"] for port in container(workload).get("ports", [])},
        )
        for component, workload in workloads(combination).items()
    }


def test_whoever_is_told_the_address_of_a_service_reaches_it(combination: Combination) -> None:
    policies, pods = list(objects(combination, "NetworkPolicy")), peers(combination)
    calls = [
        (component, *value.split(":"))
        for component, workload in workloads(combination).items()
        for variable, value in environment(workload).items()
        if variable.endswith("_ADDRESS")
    ]
    assert {caller for caller, _, _ in calls} == {"edge", "toolbox"}
    for caller, service, port in calls:
        assert allows(policies, pods[caller], pods[service], int(port)), f"{caller} cannot call {service}"


def test_whoever_has_a_database_reaches_it_and_nobody_else_does(combination: Combination) -> None:
    policies = list(objects(combination, "NetworkPolicy"))
    for component, workload in workloads(combination).items():
        has_one = any(variable.endswith("_DATABASE_URL") for variable in environment(workload))
        assert allows(policies, peers(combination)[component], DATABASE, 5432) == has_one, component


def test_everybody_resolves_names(combination: Combination) -> None:
    policies = list(objects(combination, "NetworkPolicy"))
    for component, peer in peers(combination).items():
        assert allows(policies, peer, DNS, 53, "UDP"), component
        assert allows(policies, peer, DNS, 53, "TCP"), component


def test_prometheus_reads_the_metrics_of_all_that_serve_and_nobody_else_does(combination: Combination) -> None:
    policies, pods = list(objects(combination, "NetworkPolicy")), peers(combination)
    for component in ("edge", *SERVICES):
        assert allows(policies, PROMETHEUS, pods[component], 9090)
        for other in (STRANGER, INGRESS, CALLER, NEIGHBOUR, pods["toolbox"]):
            assert not allows(policies, other, pods[component], 9090), component


def test_customers_reach_the_edge_and_nothing_else(combination: Combination) -> None:
    policies, pods = list(objects(combination, "NetworkPolicy")), peers(combination)
    assert allows(policies, INGRESS, pods["edge"], 8080)
    port = named(combination, "Service", "edge")["spec"]["ports"][0]["targetPort"]
    assert pods["edge"].ports[port] == 8080
    for component, peer in pods.items():
        for other in (INGRESS, STRANGER, NEIGHBOUR, INTERNET):
            for number in {*peer.ports.values(), 9091} - {8080}:
                assert not allows(policies, other, peer, number), f"{component}:{number}"


def test_the_edge_reaches_model_servers_and_not_the_clouds_metadata(combination: Combination) -> None:
    policies, edge = list(objects(combination, "NetworkPolicy")), peers(combination)["edge"]
    assert allows(policies, edge, MODEL_SERVER, 8000)
    assert allows(policies, edge, INTERNET, 443)
    assert not allows(policies, edge, METADATA_SERVICE, 443)
    assert not allows(policies, edge, METADATA_SERVICE, 80)
    assert not allows(policies, edge, STRANGER, 8000)


def test_internal_services_in_labelled_namespaces_call_grpc_and_only_that(combination: Combination) -> None:
    policies, pods = list(objects(combination, "NetworkPolicy")), peers(combination)
    for service in SERVICES:
        port = pods[service].ports["grpc"]
        assert allows(policies, CALLER, pods[service], port)
        for other in (STRANGER, NEIGHBOUR, PROMETHEUS, pods["migrate"], *(pods[each] for each in SERVICES)):
            assert not allows(policies, other, pods[service], port)


def test_nobody_but_the_edge_leaves_the_namespace_for_anything_but_names_and_databases(
    combination: Combination,
) -> None:
    policies, pods = list(objects(combination, "NetworkPolicy")), peers(combination)
    for component in pods.keys() - {"edge"}:
        for other in (INTERNET, MODEL_SERVER, STRANGER):
            for port in (80, 443, 8000):
                assert not allows(policies, pods[component], other, port), component
