"""What NetworkPolicies let through, as Kubernetes reads them: both ends must allow a connection.

An end that no policy selects for a direction is open in it. Policies are those of one namespace, "tollgate"; a peer is
a pod there, a pod elsewhere, or an address outside the cluster.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from tests.k8s.rendering import Document

NAMESPACE = "tollgate"


@dataclass(frozen=True)
class Peer:
    """One end of a connection. `ports` are the names of its container's ports, which policies may use."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = NAMESPACE
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    address: str | None = None  # of what is outside the cluster


def allows(policies: Iterable[Document], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection is let through at both ends."""
    known = list(policies)
    return _end(known, "egress", "to", source, target, port, protocol, target.ports) and _end(
        known, "ingress", "from", target, source, port, protocol, target.ports
    )


def _end(
    policies: list[Document],
    direction: str,
    peers: str,
    here: Peer,
    there: Peer,
    port: int,
    protocol: str,
    names: Mapping[str, int],
) -> bool:
    if here.namespace != NAMESPACE or here.address is not None:
        return True
    chosen = [
        each["spec"]
        for each in policies
        if direction.capitalize() in each["spec"]["policyTypes"] and _matches(each["spec"]["podSelector"], here.labels)
    ]
    return not chosen or any(
        _covers(rule.get("ports"), port, protocol, names)
        and (peers not in rule or any(_is(peer, there) for peer in rule[peers]))
        for spec in chosen
        for rule in spec.get(direction, [])
    )


def _covers(ports: list[Document] | None, port: int, protocol: str, names: Mapping[str, int]) -> bool:
    return ports is None or any(
        each.get("protocol", "TCP") == protocol and names.get(each["port"], each["port"]) == port for each in ports
    )


def _is(described: Document, peer: Peer) -> bool:
    if block := described.get("ipBlock"):
        return peer.address is not None and _within(peer.address, block["cidr"], block.get("except", []))
    if peer.address is not None:
        return False
    namespaces = described.get("namespaceSelector")
    labels = {"kubernetes.io/metadata.name": peer.namespace, **peer.namespace_labels}
    in_namespace = peer.namespace == NAMESPACE if namespaces is None else _matches(namespaces, labels)
    return in_namespace and _matches(described.get("podSelector", {}), peer.labels)


def _within(address: str, cidr: str, excepted: list[str]) -> bool:
    found = ip_address(address)
    return found in ip_network(cidr) and not any(found in ip_network(each) for each in excepted)


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    for each in selector.get("matchExpressions", []):
        assert each["operator"] == "In", "the only one that our policies use"
        if labels.get(each["key"]) not in each["values"]:
            return False
    wanted: Mapping[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()
