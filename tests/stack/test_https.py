"""HTTPS at the edge itself: the same answers, and a certificate that may be replaced at any time."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from chassis.settings import SettingsInvalid, load
from edge.http import https
from edge.http.https import Https
from edge.settings import EdgeSettings
from protos.client import TlsFiles, TlsUnusable
from tests.harness.certificates import Authority
from tests.harness.eventually import eventually
from tests.harness.stack import MODEL, Customer, Stack
from tests.stack.conftest import OpenStack


def trusting(files: TlsFiles) -> ssl.SSLContext:
    """A customer's side, who trusts only this authority."""
    return ssl.create_default_context(cafile=str(files.ca))


@asynccontextmanager
async def session(customer: Customer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {customer.secret}"}) as opened:
        yield opened


async def streamed(client: aiohttp.ClientSession, stack: Stack, trust: ssl.SSLContext) -> bytes:
    """A streamed answer over a connection of its own."""
    url = f"https://localhost:{stack.processes['edge'].port}/v1/chat/completions"
    asked = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "one two three"}]}
    async with client.post(url, json=asked, ssl=trust, headers={"connection": "close"}) as answer:
        assert answer.status == 200
        return await answer.read()


@pytest.mark.asyncio(loop_scope="session")
async def test_streams_are_answered_over_https_and_a_new_certificate_is_taken_up_while_everything_runs(
    fresh_stack: OpenStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https, "CHECK_PERIOD_S", 0.05)
    files = Authority(tmp_path / "tls").issue("public")
    stack = await fresh_stack(edge={"https_certificate_file": files.certificate, "https_key_file": files.key})
    customer = await stack.customer()
    async with session(customer) as client:
        assert (await streamed(client, stack, trusting(files))).endswith(b"data: [DONE]\n\n")
        successor = Authority(tmp_path / "tls").issue("public")
        trust = trusting(successor)

        async def is_replaced() -> bool:
            try:
                return b"[DONE]" in await streamed(client, stack, trust)
            except aiohttp.ClientConnectorCertificateError:
                return False

        await eventually(is_replaced)
        with pytest.raises((aiohttp.ClientError, UnicodeDecodeError)):
            await client.get(f"http://localhost:{stack.processes['edge'].port}/healthz")
    await stack.settled(customer, 2)


def test_files_that_do_not_belong_together_are_refused_at_the_start_and_ignored_later(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue("one"), authority.issue("other")
    with pytest.raises(TlsUnusable, match="are not a certificate and its private key"):
        Https(one.certificate, other.key)
    served = Https(one.certificate, one.key)
    one.key.write_bytes(other.key.read_bytes())
    served.look()
    served.context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    with pytest.raises(SettingsInvalid, match="TOLLGATE_EDGE_HTTPS_KEY_FILE: is not set"):
        load(EdgeSettings, https_certificate_file=one.certificate)
