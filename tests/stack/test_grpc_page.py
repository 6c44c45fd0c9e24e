"""docs/grpc.md says what is so: its examples run, with the wheel of the contracts alone."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.harness.doc_tables import DOCS
from tests.harness.protos_wheel import unpacked_wheel
from tests.harness.stack import MODEL, Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXAMPLE_S_MAX = 60.0
EXAMPLES = re.findall(r"```python\n(.*?)```", (DOCS / "grpc.md").read_text(), re.DOTALL)
# What each prints, among other things.
PRINTED = (
    r"acct_\w{22} has 5\.0 USD\nits key is tg_\w+",
    r"INVALID_FIELD \[\('name', '.+'\)\]\nthe service's log has it under [0-9a-f-]{36}",
    rf"snapshot \d+ \[.*'{MODEL}'.*\]",
    rf"'grpc.reflection.v1alpha.ServerReflection', 'tollgate.catalog.v1.CatalogAdminService'.*\n(.*\n)*{MODEL}",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked_wheel(tmp_path_factory.mktemp("wheel"))


async def run(program: str, wheel: Path, environment: Mapping[str, str]) -> str:
    """What a program prints that has the wheel and nothing else of ours; it must end well."""
    # Not asyncio's: uvloop forks, which gRPC in this process would have to survive; Popen does without.
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        cwd=wheel,
        env={**environment, "PYTHONPATH": str(wheel), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=EXAMPLE_S_MAX,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("number", range(len(PRINTED)))
async def test_an_example_of_the_page_runs(number: int, stack: Stack, wheel: Path) -> None:
    program = EXAMPLES[number]
    for name, documented in (("auth", 7101), ("catalog", 7102), ("usage", 7103)):
        program = program.replace(f"127.0.0.1:{documented}", f"127.0.0.1:{stack.processes[name].port}")
    assert re.search(PRINTED[number], await run(program, wheel, os.environ))


async def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == len(PRINTED)


async def test_the_wheel_brings_the_library_with_its_types_and_nothing_of_the_servers(wheel: Path) -> None:
    assert (wheel / "protos" / "py.typed").exists()
    assert (wheel / "protos" / "usage" / "v1" / "usage_pb2.pyi").exists()
    assert (wheel / "protos" / "usage" / "v1" / "usage.proto").exists()
    program = """
import sys, protos.client
from protos.usage.v1 import usage_pb2_grpc
print(protos.__file__)
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("chassis", "edge", "pricing", "structlog")))
"""
    where, loaded = (await run(program, wheel, os.environ)).splitlines()
    assert Path(where).is_relative_to(wheel)
    assert loaded == "[]"


async def test_the_examples_check_and_a_request_of_another_method_does_not(wheel: Path, tmp_path: Path) -> None:
    typed = [example for example in EXAMPLES if "protos.client" in example]
    for number, example in enumerate(typed):
        (tmp_path / f"example_{number}.py").write_text(example)
    (tmp_path / "wrong.py").write_text(typed[0].replace("auth_pb2.CreateAccountRequest(", "auth_pb2.GetKeyRequest("))
    options = ["--strict", "--follow-imports=silent", f"--cache-dir={tmp_path / 'cache'}", str(tmp_path)]
    check = f"from mypy import api; print(api.run({options!r}))"
    problems = await run(check, wheel, os.environ)
    assert "wrong.py" in problems
    assert "example_" not in problems
