"""The fields of other people's resource kinds that our manifests use, since no schema of theirs is at hand offline.

Written down from the projects' API references: cert-manager v1, Gateway API v1, Envoy Gateway v1alpha1, Prometheus
Operator v1. A field that is not here is most likely misspelt; if it is not, add it.
"""

import re
from typing import Any

_NAMES = [str]
_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
_TARGET = {"group": str, "kind": str, "name": str}
_METADATA = {"name": str, "namespace": str, "labels": dict, "annotations": dict}
_ISSUER_REF = {"name": str, "kind": str, "group": str}
_KEY = {"algorithm": {"RSA", "ECDSA", "Ed25519"}, "size": int, "rotationPolicy": {"Always", "Never"}}
_ROUTE_REF = {"name": str, "namespace": str, "sectionName": str, "port": int}
_SELECTOR = {"matchLabels": dict, "matchExpressions": [{"key": str, "operator": str, "values": _NAMES}]}
_ENDPOINT = {"port": str, "path": str, "interval": _DURATION, "scheme": str, "scrapeTimeout": _DURATION}
_RULE = {"alert": str, "expr": str, "for": _DURATION, "labels": dict, "annotations": dict}

# A mapping lists its fields, a list the form of its elements, a set its choices, a pattern what it looks like, a type
# is itself; `dict` is a mapping with any keys.
FIELDS: dict[tuple[str, str], dict[str, Any]] = {
    ("cert-manager.io/v1", "Issuer"): {"selfSigned": dict, "ca": {"secretName": str}},
    ("cert-manager.io/v1", "Certificate"): {
        "secretName": str,
        "isCA": bool,
        "commonName": str,
        "dnsNames": _NAMES,
        "usages": _NAMES,
        "privateKey": _KEY,
        "duration": _DURATION,
        "renewBefore": _DURATION,
        "issuerRef": _ISSUER_REF,
    },
    ("gateway.networking.k8s.io/v1", "Gateway"): {
        "gatewayClassName": str,
        "listeners": [
            {
                "name": str,
                "protocol": {"HTTP", "HTTPS", "TLS", "TCP", "UDP"},
                "port": int,
                "hostname": str,
                "tls": {"mode": {"Terminate", "Passthrough"}, "certificateRefs": [_TARGET]},
                "allowedRoutes": {"namespaces": {"from": {"All", "Same", "Selector"}}},
            }
        ],
    },
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): {
        "parentRefs": [_ROUTE_REF],
        "hostnames": _NAMES,
        "rules": [
            {
                "matches": [{"path": {"type": {"Exact", "PathPrefix", "RegularExpression"}, "value": str}}],
                "timeouts": {"request": _DURATION, "backendRequest": _DURATION},
                "backendRefs": [_ROUTE_REF],
            }
        ],
    },
    ("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy"): {
        "targetRefs": [_TARGET],
        "loadBalancer": {
            "type": {"ConsistentHash", "LeastRequest", "Random", "RoundRobin"},
            "consistentHash": {"type": {"Header", "SourceIP", "Cookie"}, "header": {"name": str}},
        },
    },
    ("gateway.envoyproxy.io/v1alpha1", "ClientTrafficPolicy"): {
        "targetRefs": [_TARGET],
        "timeout": {"http": {"idleTimeout": _DURATION, "streamIdleTimeout": _DURATION}},
    },
    ("monitoring.coreos.com/v1", "PodMonitor"): {
        "selector": _SELECTOR,
        "podTargetLabels": _NAMES,
        "podMetricsEndpoints": [_ENDPOINT],
    },
    ("monitoring.coreos.com/v1", "PrometheusRule"): {
        "groups": [{"name": str, "interval": _DURATION, "rules": [_RULE]}],
    },
}
# What an object of a kind cannot be without; a name after a list is asked of each element.
REQUIRED: dict[str, tuple[str, ...]] = {
    "Issuer": (),
    "Certificate": ("secretName", "issuerRef.name"),
    "Gateway": ("gatewayClassName", "listeners.name", "listeners.port", "listeners.protocol"),
    "HTTPRoute": ("parentRefs.name", "rules.backendRefs.name", "rules.backendRefs.port"),
    "BackendTrafficPolicy": ("targetRefs.group", "targetRefs.kind", "targetRefs.name"),
    "ClientTrafficPolicy": ("targetRefs.group", "targetRefs.kind", "targetRefs.name"),
    "PodMonitor": ("selector",),
    "PrometheusRule": ("groups.name", "groups.rules.expr"),
}


def is_custom(document: dict[str, Any]) -> bool:
    """Whether an object is of a kind that Kubernetes itself does not have."""
    group, slash, _ = document["apiVersion"].partition("/")
    ours = not slash or "." not in group
    return not ours and (not group.endswith(".k8s.io") or group == "gateway.networking.k8s.io")


def faults(document: dict[str, Any]) -> list[str]:
    """What is wrong with a custom object's fields; empty when nothing is."""
    kind = (document["apiVersion"], document["kind"])
    if kind not in FIELDS:
        return [f"{kind} is not known here"]
    form = {"apiVersion": str, "kind": str, "metadata": _METADATA, "spec": FIELDS[kind]}
    lacking = [
        f"{document['kind']}.spec has no {path}"
        for path in REQUIRED[document["kind"]]
        if not _has(document["spec"], path)
    ]
    return [*_faults(document, form, document["kind"]), *lacking]


def _has(value: Any, path: str) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_has(each, path) for each in value)
    name, _, rest = path.partition(".")
    return isinstance(value, dict) and name in value and (not rest or _has(value[name], rest))


def _faults(value: Any, form: Any, where: str) -> list[str]:
    if isinstance(form, type):
        return [] if isinstance(value, form) else [f"{where} is {value!r}, not {form.__name__}"]
    if isinstance(form, set):
        return [] if value in form else [f"{where} is {value!r}, none of {sorted(form)}"]
    if isinstance(form, re.Pattern):
        return [] if isinstance(value, str) and form.fullmatch(value) else [f"{where} is {value!r}, no duration"]
    if isinstance(form, list):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [fault for index, each in enumerate(value) for fault in _faults(each, form[0], f"{where}[{index}]")]
    if not isinstance(value, dict):
        return [f"{where} is no mapping"]
    unknown = [f"{where}.{name} is no field" for name in value if name not in form]
    known = [fault for name in value if name in form for fault in _faults(value[name], form[name], f"{where}.{name}")]
    return unknown + known
