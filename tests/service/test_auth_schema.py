"""auth_svc: the migrated database is the one that the code believes in, and holds no secret."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect

from auth_svc import migrations
from auth_svc.service import open_servicers
from auth_svc.tables import AuthRow
from chassis import migration, secret_token
from chassis.database import Database, open_engine
from chassis.faults import FailedPrecondition
from chassis.lifetime import Lifetime
from protos.auth.v1 import auth_pb2 as pb
from tests.harness.auth_service import PEPPER, auth_service, new_id, settings


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_the_migrated_schema_is_that_of_the_rows(database_url: str) -> None:
    await migration.migrate(database_url, migrations)
    await migration.migrate(database_url, migrations)  # a repeat does nothing

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), AuthRow.metadata))

    def columns(connection: Connection) -> dict[str, dict[str, bool]]:
        inspector = inspect(connection)
        return {
            table: {column["name"]: column["nullable"] for column in inspector.get_columns(table)}
            for table in AuthRow.metadata.tables
        }

    async with Database(open_engine(database_url)) as database, database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        found = await connection.run_sync(columns)
    for name, table in AuthRow.metadata.tables.items():
        assert found[name] == {column.name: column.nullable for column in table.columns}


async def test_a_migration_goes_into_its_own_postgres_schema(request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue("postgres_url_factory")()
    await migration.migrate(url, migrations, schema="auth")
    assert await migration.current(url, schema="auth") == migration.head(migrations)
    async with Database(open_engine(url)) as database, database.engine.connect() as connection:
        assert await connection.run_sync(lambda sync: inspect(sync).get_table_names(schema="public")) == []
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names(schema="auth"))
    assert set(AuthRow.metadata.tables) < set(names)


async def test_a_restart_keeps_accounts_keys_and_answers(database_url: str) -> None:
    async with auth_service(database_url) as first:
        account = await first.create_account("kept")
        request = pb.CreateKeyRequest(
            request_id=new_id(), key=pb.Key(account_id=account.account_id, name="k", scopes=[pb.SCOPE_INFERENCE])
        )
        made = await first.call(first.admin.CreateKey, request)
        before = await first.authenticate(made.secret)
    async with auth_service(database_url) as second:
        assert (await second.call(second.admin.GetAccount, pb.GetAccountRequest(name="kept"))).account == account
        assert await second.authenticate(made.secret) == before
        assert (await second.call(second.admin.CreateKey, request)).key == made.key


async def test_another_pepper_is_refused_at_the_start_and_not_told_to_customers(database_url: str) -> None:
    async with auth_service(database_url) as first:
        made = await first.create_key(await first.create_account())
    wrong = settings(database_url, key_pepper="another pepper, as long as the first one is")
    async with Database(open_engine(database_url)) as database:
        with pytest.raises(FailedPrecondition, match="TOLLGATE_AUTH_KEY_PEPPER") as caught:
            async with open_servicers(wrong, database, Lifetime()):
                pass
    assert caught.value.reason == "WRONG_PEPPER"
    async with auth_service(database_url) as again:
        assert (await again.authenticate(made.secret)).grant.key_id == made.key.key_id


async def test_no_secret_nor_its_plain_hash_is_in_the_database_files(sqlite_url: str, tmp_path: Path) -> None:
    imported = secret_token.make("tg_", bytes(range(24)))
    async with auth_service(sqlite_url) as auth:
        account = await auth.create_account()
        drawn = (await auth.create_key(account)).secret
        await auth.create_key(account, secret=imported)
        for secret in (drawn, imported):
            await auth.authenticate(secret)
        # While the service runs, so that the write-ahead log is read too.
        files = contents(tmp_path)
    assert any(name.endswith("-wal") for name in files)
    for secret in (drawn, imported):
        digest = secret_token.digest(secret)
        for needle in (secret.encode(), secret[11:].encode(), digest, digest.hex().encode(), PEPPER.encode()):
            assert [name for name, content in files.items() if needle in content] == []
