"""The databases that store tests stand on: both engines, empty, and reached through SQLAlchemy alone."""

import socket
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine


async def test_a_database_url_opens_an_empty_database_on_each_engine(database_url: str) -> None:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE probe (id BIGINT PRIMARY KEY)"))
        await connection.execute(text("INSERT INTO probe VALUES (7)"))
        assert (await connection.execute(text("SELECT id FROM probe"))).scalar_one() == 7
    await engine.dispose()


async def test_every_call_makes_a_database_of_its_own(postgres_url_factory: Callable[[], str]) -> None:
    first, second = postgres_url_factory(), postgres_url_factory()
    assert first != second
    for url in (first, second):
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE probe (id BIGINT)"))
            version = (await connection.execute(text("SHOW server_version"))).scalar_one()
        await engine.dispose()
        assert int(version.split(".")[0]) >= 16


def test_a_socket_beyond_loopback_is_refused_before_it_connects() -> None:
    with socket.socket() as sock, pytest.raises(RuntimeError, match="beyond loopback"):
        sock.connect(("192.0.2.1", 80))
    with socket.socket() as sock, pytest.raises(RuntimeError, match="beyond loopback"):
        sock.connect_ex(("example.com", 80))
