"""Tables of the documentation that code is the source of. `python -m tests.harness.doc_tables` writes them anew."""

import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from auth_svc.settings import AuthSettings
from catalog_svc.settings import CatalogSettings
from chassis.callers import callers_from_text
from edge.counting import LoopCounter, LoopHistogram
from edge.openai.error_table import ERRORS
from edge.openai.fields import REFUSED
from usage_svc.settings import UsageSettings

DOCS = Path(__file__).parents[2] / "docs"

# Every process's own metrics; what chassis counts is in all of them.
METRIC_MODULES: Mapping[str, tuple[str, ...]] = {
    "every process": ("chassis.metrics",),
    "edge": ("edge.metrics", "edge.metering.metrics", "edge.logs.metrics", "edge.group_scrape"),
    "auth_svc": ("auth_svc.metrics",),
    "catalog_svc": ("catalog_svc.metrics",),
    "usage_svc": ("usage_svc.metrics",),
}


def errors_table() -> str:
    """One row per error that the edge answers by itself."""
    lines = ["| status | type | code | reason | when | `x-should-retry` |", "|---|---|---|---|---|---|"]
    for reason, row in sorted(ERRORS.items(), key=lambda item: (item[1].status, item[0])):
        code = f"`{row.code}`" if row.code is not None else "null"
        retry = "" if row.should_retry is None else str(row.should_retry).lower()
        lines.append(f"| {row.status} | `{row.type}` | {code} | `{reason}` | {row.when} | {retry} |")
    return "\n".join(lines)


def metrics_table() -> str:
    """One row per metric, by process."""
    lines = ["| metric | process | kind | labels | meaning |", "|---|---|---|---|---|"]
    for process, modules in METRIC_MODULES.items():
        for name, kind, label_names, meaning in sorted(map(_described, _metrics_of(modules))):
            labels = ", ".join(f"`{label}`" for label in label_names)
            lines.append(f"| `{name}` | {process} | {kind} | {labels} | {meaning} |")
    return "\n".join(lines)


def _described(metric: Any) -> tuple[str, str, tuple[str, ...], str]:
    if isinstance(metric, LoopCounter | LoopHistogram):
        return metric.name, metric.kind, metric.label_names, metric.help_text
    suffix = "_total" if metric._type == "counter" else ""
    return metric._name + suffix, metric._type, tuple(metric._labelnames), metric._documentation


def _metrics_of(modules: tuple[str, ...]) -> list[Any]:
    found: list[Any] = []
    for name in modules:
        found += [
            value
            for value in vars(importlib.import_module(name)).values()
            if isinstance(value, MetricWrapperBase | LoopCounter | LoopHistogram)
        ]
    return found


def callers_table() -> str:
    """One row per gRPC service: who may call it unless the settings say otherwise."""
    lines = ["| process | gRPC service | certificates of |", "|---|---|---|"]
    for process, settings in (("auth", AuthSettings), ("catalog", CatalogSettings), ("usage", UsageSettings)):
        for service, names in callers_from_text(settings.model_fields["callers"].default).items():
            lines.append(f"| {process}_svc | `{service}` | {', '.join(f'`{name}`' for name in sorted(names))} |")
    return "\n".join(lines)


def refused_table() -> str:
    """One row per name that a deployment's `allow` may hold, under the reason that a client is told."""
    names_by_why: dict[str, list[str]] = {}
    for name, row in REFUSED.items():
        names_by_why.setdefault(row.why, []).append(f"`{name}`")
    lines = ["| names | refused because |", "|---|---|"]
    return "\n".join([*lines, *(f"| {', '.join(names)} | {why} |" for why, names in names_by_why.items())])


TABLES: Mapping[str, tuple[str, Callable[[], str]]] = {
    "errors": ("errors.md", errors_table),
    "metrics": ("metrics.md", metrics_table),
    "callers": ("grpc.md", callers_table),
    "refused": ("catalog.md", refused_table),
}


def block(name: str, text: str) -> re.Match[str]:
    """Where a page holds a table: between `<!-- table: NAME -->` and `<!-- end -->`."""
    found = re.search(rf"(<!-- table: {name} -->\n)(.*?)(\n<!-- end -->)", text, re.DOTALL)
    assert found is not None, f"no table {name!r} in the page"
    return found


def main() -> None:
    """Writes every table into its page."""
    for name, (page, table) in TABLES.items():
        path = DOCS / page
        text = path.read_text()
        found = block(name, text)
        path.write_text(text[: found.start(2)] + table() + text[found.end(2) :])


if __name__ == "__main__":
    main()
