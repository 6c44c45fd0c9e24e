"""/openapi.json and /llms.txt: public, true to the routes, and what the running edge does (schemathesis)."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from edge.reference.openapi import openapi_document
from tests.harness.stack import INFERENCE, MANAGEMENT, Stack
from tests.stack.client import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

SEED = 20261124
EXAMPLES_MAX = 5  # of each operation, behind the several hundred that cover every part of its schema
TIMEOUT_S = 180  # twenty seconds of one core's time; other tests may run beside it
# What no schema can say, and so is not held against the edge: which models the catalog has, which ids the account has,
# that a moment has not passed.
UNKNOWABLE = "positive_data_acceptance"
METHODS = {"get", "post", "patch", "delete", "put"}


async def test_the_document_is_public_and_openapi_3_1(stranger: Client) -> None:
    answer = await stranger.ask("GET", "/openapi.json")
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.json == openapi_document()
    assert answer.json["openapi"] == "3.1.0"
    assert (await stranger.ask("POST", "/openapi.json", b"")).status == 405


async def test_every_path_of_the_document_is_served_with_its_methods_and_no_other(stranger: Client) -> None:
    for path, operations in openapi_document()["paths"].items():
        answer = await stranger.ask("OPTIONS", re.sub(r"\{.*?\}", "an_id", path))
        assert answer.status == 204, path
        allowed = {method.lower() for method in (answer.header("allow") or "").split(", ")}
        assert allowed - {"head", "options"} == METHODS & operations.keys(), path


async def test_what_needs_a_key_says_so(stranger: Client) -> None:
    document = openapi_document()
    assert document["security"] == [{"key": []}]
    for path, operations in document["paths"].items():
        for method in METHODS & operations.keys():
            answer = await stranger.ask(method.upper(), re.sub(r"\{.*?\}", "an_id", path), b"{}")
            assert (answer.status == 401) is (operations[method].get("security") != []), (method, path)


async def test_the_index_for_language_models_leads_to_every_page(stranger: Client) -> None:
    answer = await stranger.ask("GET", "/llms.txt")
    assert (answer.status, answer.header("content-type")) == (200, "text/plain; charset=utf-8")
    text = answer.body.decode()
    assert text.startswith("# Tollgate\n\n> ")
    links = re.findall(r"\]\((/[^)]+)\)", text)
    assert {"/openapi.json", "/v1/models", "/docs/http-api.md", "/docs/management-api.md", "/docs/errors.md"} <= {
        *links
    }
    for link in links:
        expected = 401 if link == "/v1/models" else 200
        assert (await stranger.ask("GET", link)).status == expected, link
    pages = [link for link in links if link.startswith("/docs/")]
    assert len(pages) > 10
    for page in pages:
        text = (await stranger.ask("GET", page)).body.decode()
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if not target.startswith(("https://", "http://")):
                assert f"/docs/{target}" in pages, f"{page} leads to {target}"
    for secret in ("/docs/", "/docs/../README.md", "/docs/%2e%2e/README.md", "/docs/nonsense.md"):
        assert (await stranger.ask("GET", secret)).status == 404


async def test_schemathesis_finds_nothing_that_the_document_does_not_say(stack: Stack, tmp_path: Path) -> None:
    customer = await stack.customer(usd=1000, scopes=[INFERENCE, MANAGEMENT])
    await stack.create_key(customer.account_id, scopes=[MANAGEMENT])
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{stack.edge_url}/openapi.json"),
        *("--header", f"Authorization: Bearer {customer.secret}", "--seed", str(SEED)),
        *("--max-examples", str(EXAMPLES_MAX), "--phases", "coverage,fuzzing,stateful"),
        *("--checks", "all", "--exclude-checks", UNKNOWABLE, "--generation-database", "none"),
        *("--suppress-health-check", "all", "--no-color", "--continue-on-failure"),
    ]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
