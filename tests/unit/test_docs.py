"""The documentation says what the code does, and nothing else."""

import re
from pathlib import Path

import pytest

from tests.harness.doc_tables import DOCS, TABLES, block

ROOT = DOCS.parent
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("name", TABLES)
def test_a_table_in_the_docs_equals_the_code(name: str) -> None:
    page, table = TABLES[name]
    written = block(name, (DOCS / page).read_text()).group(2)
    assert written == table(), "run `make docs`"


def _pages() -> list[Path]:
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *sorted(DOCS.rglob("*.md")),
        ROOT / "k8s" / "README.md",
    ]


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    rooms = "protos|chassis|pricing|auth_svc|catalog_svc|usage_svc|edge|tollgate|tests|bench|docs|k8s"
    for name in re.findall(rf"`((?:{rooms})/[\w./-]*)`", page.read_text()):
        assert (ROOT / name).exists(), f"{page.name} names {name}, which is not there"
