"""The wheel of `protos` alone, unpacked, as another team would install it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

PROTOS = Path(__file__).parents[2] / "protos"


def unpacked_wheel(folder: Path) -> Path:
    """Builds the wheel and gives a folder from which it can be imported."""
    source, built, installed = folder / "source", folder / "built", folder / "installed"
    shutil.copytree(PROTOS, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    built.mkdir()
    build = f"from setuptools import build_meta; print(build_meta.build_wheel({str(built)!r}))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", build], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(built.glob("tollgate_protos-*.whl"))) as wheel:
        wheel.extractall(installed)
    return installed
