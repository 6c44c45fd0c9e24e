"""The programs that look at manifests: in an environment of their own, since checkov pins much that we use newer."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("K8S_TOOLS", ROOT / ".venv-k8s" / "bin"))
_TIMEOUT_S = 300


def tool(name: str) -> str | None:
    """Where a program is; None where it is not."""
    return shutil.which(name, path=os.pathsep.join([str(TOOLS), os.environ.get("PATH", "")]))


def run(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs a program to its end; its output is in the failure of an assertion on its status."""
    found = tool(name)
    assert found, f"{name} is not here: run `make check-k8s`"
    return subprocess.run(
        [found, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, cwd=ROOT
    )
