"""An image of a version that does not exist yet: this one, with one more migration of each service."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.k8s.containers import Containers, podman

_HEADS = """
import json, chassis
from importlib import import_module
from pathlib import Path
from chassis.migration import head
heads = {name: head(import_module(f"{name}_svc.migrations")) for name in ("auth", "catalog", "usage")}
print(json.dumps({"heads": heads, "packages": str(Path(chassis.__path__[0]).parent)}))
"""
_MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("of_the_next_version", sa.Column("id", sa.BigInteger, primary_key=True))
"""


def build(image: str, of: str, containers: Containers) -> dict[str, str]:
    """Builds it out of another image, which runs. Returns each service's newest revision in it."""
    found = json.loads(containers.in_toolbox("python", "-c", _HEADS))
    revisions = {name: f"{int(head) + 1:04d}" for name, head in found["heads"].items()}
    recipe = [f"FROM {of}"]
    with TemporaryDirectory() as folder:
        for name, head in found["heads"].items():
            file = Path(folder) / f"{name}.py"
            file.write_text(_MIGRATION.format(revision=revisions[name], before=head))
            file.chmod(0o644)
            recipe.append(
                f"COPY {file.name} {found['packages']}/{name}_svc/migrations/versions/{revisions[name]}_next.py"
            )
        (Path(folder) / "Dockerfile").write_text("\n".join(recipe))
        podman("build", "--quiet", "--tag", image, folder, timeout_s=300)
    return revisions
