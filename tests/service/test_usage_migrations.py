"""usage_svc's migrations carry what stands in a database over, on SQLite and on PostgreSQL."""

from sqlalchemy import text

from chassis import migration
from chassis.database import open_engine
from tests.harness.usage_service import event, usage_service
from usage_svc import migrations

REQUEST, FREE_REQUEST = "0199a0de-0000-7000-8000-000000000001", "0199a0de-0000-7000-8000-000000000002"
_EVENT = (
    "INSERT INTO usage_event VALUES (20000, '{0}', 'lease', 'acme', 'key', 'model', 'deployment', 1, 1, 2000, 200, "
    "{2}, 1, 1, 1, 100, 50, 0, 0, 0, 0, 0, 0, 'v', 500, 1000, 1, 2, {3}, {1}, 0, 'spool', 1, 7)"
)


async def test_a_ledger_of_rows_becomes_the_same_ledger_as_a_view(database_url: str) -> None:
    await migration.migrate(database_url, migrations, to="0001")
    engine = open_engine(database_url)
    is_sqlite = engine.dialect.name == "sqlite"
    literals = ("1", "X'00'") if is_sqlite else ("true", "decode('00', 'hex')")
    try:
        async with engine.execution_options(writes=True).begin() as connection:
            for statement in (
                "INSERT INTO account VALUES ('acme', 600, 100, 0, 1000, 400, 1)",
                "INSERT INTO entry VALUES (1, 1, 'acme', 'cash', 'acme', 1000, 0, '', 'hello', 1000)",
                f"INSERT INTO entry VALUES (2, 3, 'acme', 'acme', 'revenue', 400, 0, '{REQUEST}', '', 3000)",
                _EVENT.format(REQUEST, 400, *literals),
                _EVENT.format(FREE_REQUEST, 0, *literals),
            ):
                await connection.execute(text(statement))
    finally:
        await engine.dispose()
    async with usage_service(database_url) as usage:
        rows = await usage.rows(
            "SELECT entry_id, kind, debit_account_id, credit_account_id, amount_nanousd, request_id FROM entry "
            "ORDER BY entry_id"
        )
        assert rows == [(1000, 1, "cash", "acme", 1000, ""), (2000, 3, "acme", "revenue", 400, REQUEST)]
        assert await usage.rows("SELECT spool_uuid, incarnation, first_seq FROM batch ORDER BY batch_id") == [
            ("", 0, 0),
            ("spool", 1, 7),
        ]
        # The next batch gets a number of its own.
        edge = await usage.open_edge()
        edge.spool(event("rival"))
        await edge.ship()
        (newest,) = await usage.rows("SELECT entry_id FROM usage_event WHERE account_id = 'rival'")
        assert newest[0] > 2000
