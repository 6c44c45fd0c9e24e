"""Without kubectl nothing here can be rendered: `make check-k8s` installs it, beside the other tools."""

import pytest

from tests.k8s.tools import tool


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in ("kubectl", "kubernetes-validate", "checkov", "hadolint", "promtool") if not tool(name)]
    for item in items:
        needs = {mark.args[0] for mark in item.iter_markers("tool")}
        if lacking := needs & set(missing):
            item.add_marker(pytest.mark.skip(f"{', '.join(sorted(lacking))} is not here: run `make check-k8s`"))
