"""The database as k8s/README.md has an operator make it: three roles, each with a schema that no other can read."""

import re
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

import auth_svc.migrations
import catalog_svc.migrations
import usage_svc.migrations
from chassis.database import open_engine
from chassis.migration import head, migrate
from tests.harness.postgres import postgres_server

MIGRATIONS = {"auth": auth_svc.migrations, "catalog": catalog_svc.migrations, "usage": usage_svc.migrations}
README = Path(__file__).resolve().parents[2] / "k8s" / "README.md"


async def test_each_service_migrates_and_reads_its_own_schema_as_its_own_role_and_no_other() -> None:
    (statements,) = re.findall(r"^```sql\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    with postgres_server() as postgres:
        for statement in statements.strip().split(";\n"):
            postgres.execute(statement)
        urls = {name: postgres.dsn("tollgate").replace("postgres@", f"tollgate_{name}@") for name in MIGRATIONS}
        for name, migrations in MIGRATIONS.items():
            assert await migrate(urls[name], migrations, schema=name) == head(migrations)
        for name in MIGRATIONS:
            engine = open_engine(urls[name], schema=name)
            async with engine.connect() as connection:
                await connection.execute(text(f"SELECT * FROM {name}.alembic_version"))
            for other in MIGRATIONS.keys() - {name}:
                async with engine.connect() as connection:
                    with pytest.raises(ProgrammingError, match="permission denied for schema"):
                        await connection.execute(text(f"SELECT * FROM {other}.alembic_version"))
            await engine.dispose()
