"""What `kubectl kustomize` makes of the overlays, with every combination of components that makes sense."""

import os
import shutil
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import chain, combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from tests.k8s.tools import ROOT, run

K8S = ROOT / "k8s"
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
Document = dict[str, Any]

WORKLOADS = {"Deployment", "StatefulSet", "Job"}
# In front of the edge stands one of these, or something of the operator's own.
_FRONTS = ((), ("ingress-nginx",), ("gateway",), ("gateway", "gateway-envoy"))
_FREE = {"dev": ("monitoring", "spool-pvc"), "production": ("monitoring", "spool-pvc", "hpa-open-streams")}


class Combination(NamedTuple):
    """An overlay, the components that are added to it, in their order, and what an operator edits in its own file."""

    overlay: str
    components: tuple[str, ...]
    edits: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return "+".join([self.overlay, *self.components, *(["edited"] if self.edits else [])])


def every_combination() -> list[Combination]:
    """Each overlay with each front and each subset of the components that are free to choose."""
    found = []
    for overlay, free in _FREE.items():
        for front in _FRONTS:
            for chosen in chain.from_iterable(combinations(free, count) for count in range(len(free) + 1)):
                found.append(Combination(overlay, (*front, *chosen)))
        found += [
            Combination(overlay, chosen)
            for chosen in (("edge-tls",), ("edge-tls", "spool-pvc"), ("edge-tls", "spool-pvc", "load-balancer"))
        ]
    return found + EDITED


def of_version(overlay: str, version: str) -> Combination:
    """The two lines changed that README.md, "Upgrade, and undo", says to change."""
    lines = (f"newTag: {VERSION}", f"app.kubernetes.io/version: {VERSION}")
    return Combination(overlay, (), tuple((line, line.replace(VERSION, version)) for line in lines))


def _listed(*names: str) -> Combination:
    """Production with components switched on where they stand in its own list."""
    return Combination(
        "production", (), tuple((f"# - ../../components/{name}\n", f"- ../../components/{name}\n") for name in names)
    )


PRODUCTION = Combination("production", ())
DEV = Combination("dev", ())
# Somebody has other means of making certificates.
BY_HAND = Combination("production", (), (("  - ../../components/cert-manager\n", ""),))
EDITED = [
    BY_HAND,
    _listed("spool-pvc", "ingress-nginx", "monitoring", "hpa-open-streams"),
    _listed("spool-pvc", "gateway", "gateway-envoy", "monitoring", "hpa-open-streams"),
    _listed("edge-tls", "spool-pvc", "load-balancer", "monitoring", "hpa-open-streams"),
]
FULLEST = Combination("production", ("gateway", "gateway-envoy", "monitoring", "spool-pvc", "hpa-open-streams"))


@cache
def rendered(combination: Combination) -> tuple[Document, ...]:
    """Every object of a combination."""
    with TemporaryDirectory() as folder:
        k8s = _edited(combination, Path(folder) / "k8s") if combination.edits else K8S
        here = os.path.relpath(k8s, os.path.realpath(folder))
        kustomization = {
            "namespace": "tollgate",
            "resources": [f"{here}/overlays/{combination.overlay}"],
            "components": [f"{here}/components/{name}" for name in combination.components],
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        made = run("kubectl", "kustomize", folder)
    assert made.returncode == 0, f"{combination}: {made.stderr}"
    return tuple(
        yaml.load_all(made.stdout, yaml.CSafeLoader)
    )  # the one in Python takes most of the time of these tests


def _edited(combination: Combination, folder: Path) -> Path:
    """A copy of the manifests, with the edits in the overlay's kustomization.yaml."""
    shutil.copytree(K8S, folder)
    file = folder / "overlays" / combination.overlay / "kustomization.yaml"
    text = file.read_text()
    for old, new in combination.edits:
        assert text.count(old) == 1, f"{combination.overlay}: {old}"
        text = text.replace(old, new)
    file.write_text(text)
    return folder


def objects(combination: Combination, *kinds: str) -> Iterator[Document]:
    """The objects of some kinds."""
    return (each for each in rendered(combination) if each["kind"] in kinds)


def named(combination: Combination, kind: str, name: str) -> Document:
    """One object."""
    (found,) = (each for each in objects(combination, kind) if each["metadata"]["name"] == name)
    return found


def workloads(combination: Combination) -> dict[str, Document]:
    """What runs pods, by the component's label."""
    return {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each for each in objects(combination, *WORKLOADS)
    }


def pod(workload: Document) -> Document:
    """The pod that a workload makes."""
    template: Document = workload["spec"]["template"]
    return template


def container(workload: Document) -> Document:
    """The one container of a workload."""
    (only,) = pod(workload)["spec"]["containers"]
    found: Document = only
    return found


def environment(workload: Document) -> dict[str, Any]:
    """The container's variables: a text, or where it comes from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(workload).get("env", [])}
