"""The image's recipe: what goes in, what stays out, and that the locks are those of pyproject.toml."""

import re
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement

from tests.k8s.tools import ROOT, run
from tollgate.local_model import WEIGHTS_REQUIREMENT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def locked(name: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Each pinned requirement of a lock with its hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            pinned, *hashes = line.split("--hash=")
            yield Requirement(pinned), hashes


@pytest.mark.parametrize("name", ["runtime", "local-model", "build"])
def test_every_locked_requirement_has_one_version_and_hashes(name: str) -> None:
    for requirement, hashes in locked(name):
        assert str(requirement.specifier).startswith("=="), requirement
        assert hashes
        assert all(each.startswith("sha256:") for each in hashes)


def test_the_locks_hold_what_the_project_asks_for() -> None:
    pins = {requirement.name: requirement for requirement, _ in locked("runtime")}
    for text in PROJECT["project"]["dependencies"]:
        asked = Requirement(text)
        version = str(pins[asked.name].specifier).removeprefix("==")
        assert asked.specifier.contains(version), f"{asked} is not what is locked: run `make lock`"
    extra = {str(Requirement(text)) for text in PROJECT["project"]["optional-dependencies"]["local-model"]}
    assert {str(requirement) for requirement, _ in locked("local-model")} == {*extra, WEIGHTS_REQUIREMENT}


def test_every_package_of_ours_is_copied_and_nothing_else_is_sent_to_the_builder() -> None:
    packages = {pattern.removesuffix("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    pages = {
        pattern.partition("/")[0] for each in PROJECT["tool"]["setuptools"]["data-files"].values() for pattern in each
    }
    copied = set(re.findall(r"^COPY (\w+)/ \1/$", DOCKERFILE, re.MULTILINE))
    sent = set(re.findall(r"^!(\S+?)/?$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied == packages | pages | {"requirements"}
    assert sent == copied | {"pyproject.toml", "README.md", "LICENSE"}


def test_the_last_stage_is_small_and_unprivileged() -> None:
    runtime = DOCKERFILE.index(" AS runtime")
    dev, production = DOCKERFILE.index("FROM runtime AS dev"), DOCKERFILE.index("FROM runtime AS production")
    last = DOCKERFILE[runtime:dev] + DOCKERFILE[production:]
    assert re.search(r"^USER \d+:\d+$", last, re.MULTILINE)
    assert "STOPSIGNAL SIGTERM" in last
    assert "org.opencontainers.image.version" in last
    assert "RUN " not in last
    assert "--require-hashes" in DOCKERFILE
    assert DOCKERFILE.rstrip().splitlines()[-2].startswith("FROM runtime AS production")


@pytest.mark.tool("hadolint")
def test_hadolint_has_nothing_to_say() -> None:
    checked = run("hadolint", "Dockerfile")
    assert checked.returncode == 0, checked.stdout
