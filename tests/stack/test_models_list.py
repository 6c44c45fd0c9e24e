"""GET /v1/models: the live catalog, in OpenAI's shape and in OpenRouter's (docs/http-api.md, "Models")."""

import json
import re
from pathlib import Path

import jsonschema_rs
import openai
import pytest
import yaml

import catalog_svc
from catalog_svc.document_models import FEATURES, INPUT_MODALITIES, PER_MILLION_KEYS, SAMPLING_PARAMETERS
from tests.harness.openrouter_schema import OPENROUTER_DOCUMENT, QUANTIZATIONS
from tests.harness.stack import MANAGEMENT, MODEL, Json, Stack
from tests.stack.client import Client, Response, chat
from tests.stack.conftest import OpenStack

pytestmark = pytest.mark.asyncio(loop_scope="session")

RICH: Json = {
    "name": "Rich: Model",
    "description": "Everything is said.",
    "owned_by": "somebody",
    "hugging_face_id": "rich/Model",
    "created": "2026-04-16",
    "input_modalities": ["text", "image"],
    "quantization": "fp8",
    "context_length": 262_144,
    "max_output_length": 65_536,
    "sampling_parameters": ["temperature", "top_p", "max_tokens"],
    "features": ["tools", "json_mode", "reasoning"],
    "datacenters": ["NO", "DE"],
    "deprecation_date": "2030-01-31",
    "prices": [
        {
            "per_million": {"prompt": "0.15", "completion": "1", "input_cache_read": "0.05"},
            "per_unit": {"image": "0.001", "request": "0.0002"},
        }
    ],
}


def ids(answer: Response) -> set[str]:
    assert answer.status == 200
    return {entry["id"] for entry in answer.json["data"]}


async def test_an_entry_has_every_member_and_true_prices(stack: Stack, client: Client) -> None:
    model = await stack.offer_new(**RICH)
    entry = (await client.ask("GET", f"/v1/models/{model}")).json
    assert entry == {
        "id": model,
        "object": "model",
        "created": 1_776_297_600,
        "owned_by": "somebody",
        "hugging_face_id": "rich/Model",
        "name": "Rich: Model",
        "description": "Everything is said.",
        "input_modalities": ["text", "image"],
        "output_modalities": ["text"],
        "quantization": "fp8",
        "context_length": 262_144,
        "max_output_length": 65_536,
        "pricing": {
            "prompt": "0.00000015",
            "completion": "0.000001",
            "image": "0.001",
            "request": "0.0002",
            "input_cache_read": "0.00000005",
        },
        "supported_sampling_parameters": ["temperature", "top_p", "max_tokens"],
        "supported_features": ["tools", "json_mode", "reasoning"],
        "datacenters": [{"country_code": "NO"}, {"country_code": "DE"}],
        "deprecation_date": "2030-01-31",
    }
    listed = (await client.ask("GET", "/v1/models")).json
    assert listed.keys() == {"object", "data"}
    assert listed["object"] == "list"
    assert entry in listed["data"]


async def test_prices_that_were_not_given_are_present_and_true(stack: Stack, client: Client) -> None:
    model = await stack.offer_new(prices=[{"per_million": {"prompt": "0.10", "completion": "0.000001"}}])
    pricing = (await client.ask("GET", f"/v1/models/{model}")).json["pricing"]
    assert pricing == {
        "prompt": "0.0000001",
        "completion": "0.000000000001",
        "image": "0",
        "request": "0",
        "input_cache_read": "0.0000001",
    }


async def test_ids_with_slashes_may_be_escaped(stack: Stack, client: Client) -> None:
    model = await stack.offer_new()
    for path in (model, model.replace("/", "%2F"), model.replace("/", "%2f"), model.replace("t", "%74")):
        answer = await client.ask("GET", f"/v1/models/{path}?x=1")
        assert (answer.status, answer.json["id"]) == (200, model)
    missing = await client.ask("GET", "/v1/models/no%2Fsuch")
    assert (missing.status, missing.error["type"], missing.error["param"]) == (404, "invalid_request_error", "model")
    assert "no/such" in missing.error["message"]


async def test_a_model_that_nothing_serves_is_not_listed(stack: Stack, client: Client) -> None:
    alone, drained = await stack.offer_new([]), await stack.offer_new([{"weight": 0}])
    assert {alone, drained}.isdisjoint(ids(await client.ask("GET", "/v1/models")))
    assert (await client.ask("GET", f"/v1/models/{alone}")).status == 404


async def test_the_list_needs_a_key_of_any_scope_and_shows_what_it_may_use(stack: Stack) -> None:
    model = await stack.offer_new()
    stranger = await Client(stack.edge_url).ask("GET", "/v1/models")
    assert (stranger.status, stranger.error["code"]) == (401, "INVALID_API_KEY")
    listed = await stack.customer(allowed_models=[model])
    client = Client(stack.edge_url, listed.secret)
    assert ids(await client.ask("GET", "/v1/models")) == {model}
    assert (await client.ask("GET", f"/v1/models/{MODEL}")).status == 404
    manager = await stack.customer(scopes=[MANAGEMENT])
    assert {model, MODEL} <= ids(await Client(stack.edge_url, manager.secret).ask("GET", "/v1/models"))


async def test_a_public_list_is_open_to_crawlers_and_still_filters_by_key(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack(edge={"models_public": True})
    model = await stack.offer_new()
    stranger = Client(stack.edge_url)
    assert ids(await stranger.ask("GET", "/v1/models")) == {model, MODEL}
    assert (await stranger.ask("GET", f"/v1/models/{model}")).status == 200
    assert ids(await stranger.ask("GET", "/v1/models?format=openrouter")) == {model, MODEL}
    listed = await stack.customer(allowed_models=[model])
    assert ids(await Client(stack.edge_url, listed.secret).ask("GET", "/v1/models")) == {model}
    assert (await Client(stack.edge_url, "wrong").ask("GET", "/v1/models")).status == 401
    assert (await stranger.chat()).status == 401


async def test_the_sdk_reads_the_list(stack: Stack, client: Client) -> None:
    model = await stack.offer_new(**RICH)
    async with openai.AsyncOpenAI(base_url=f"{stack.edge_url}/v1", api_key=client.secret) as sdk:
        assert model in [each.id async for each in sdk.models.list()]
        assert (await sdk.models.retrieve(model)).owned_by == "somebody"
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve("no/such")


async def test_a_new_price_is_shown_from_its_moment(stack: Stack, client: Client) -> None:
    later = {"effective": "2100-01-01T00:00:00Z", "per_million": {"prompt": "9", "completion": "9"}}
    model = await stack.offer_new(prices=[{"per_million": {"prompt": "1", "completion": "2"}}, later])
    assert (await client.ask("GET", f"/v1/models/{model}")).json["pricing"]["prompt"] == "0.000001"


# ---- ?format=openrouter ----


async def test_the_openrouter_document_has_its_members_and_no_others(stack: Stack, client: Client) -> None:
    model = await stack.offer_new(**RICH)
    answer = await client.ask("GET", "/v1/models?format=openrouter")
    assert answer.json.keys() == {"data"}
    [entry] = [each for each in answer.json["data"] if each["id"] == model]
    assert entry == {
        "schema_version": "2.4",
        "id": model,
        "name": "Rich: Model",
        "hugging_face_id": "rich/Model",
        "created": 1_776_297_600,
        "quantization": "fp8",
        "description": "Everything is said.",
        "input_modalities": [
            {
                "type": "text",
                "supported_inputs": {"max_context_length": {"value": 262_144, "unit": "token"}},
                "pricing": [
                    {"type": "prompt", "unit": "token", "cost_usd": "0.00000015"},
                    {"type": "cached_prompt", "unit": "token", "cost_usd": "0.00000005", "implicit": True},
                ],
            },
            {
                "type": "image",
                "supported_inputs": {"sources": {"type": "enum", "values": ["base64"]}},
                "pricing": [
                    {"type": "prompt", "unit": "token", "cost_usd": "0.00000015"},
                    {"type": "prompt", "unit": "image", "cost_usd": "0.001"},
                ],
            },
        ],
        "output_modalities": [
            {
                "type": "text",
                "streaming": True,
                "supported_parameters": {
                    "temperature": {"type": "unknown"},
                    "top_p": {"type": "unknown"},
                    "max_tokens": {"type": "integer", "min": 1, "max": 65_536, "unit": "token"},
                    "tools": {"type": "boolean"},
                    "response_format": {"type": "boolean"},
                    "reasoning": {"type": "boolean"},
                },
                "max_length": {"value": 65_536, "unit": "token"},
                "pricing": [{"type": "completion", "unit": "token", "cost_usd": "0.000001"}],
            }
        ],
        "pricing": [{"type": "request", "unit": "request", "cost_usd": "0.0002"}],
        "deprecation_date": "2030-01-31",
        "datacenters": [{"country_code": "NO"}, {"country_code": "DE"}],
    }


async def test_a_plain_models_openrouter_entry_leaves_out_what_there_is_not(stack: Stack, client: Client) -> None:
    model = await stack.offer_new(prices=[{"per_million": {"prompt": 1, "completion": 2}}])
    data = (await client.ask("GET", "/v1/models?format=openrouter")).json["data"]
    [entry] = [each for each in data if each["id"] == model]
    assert entry.keys() == {
        "schema_version",
        "id",
        "name",
        "hugging_face_id",
        "created",
        "quantization",
        "description",
        "input_modalities",
        "output_modalities",
    }
    assert entry["quantization"] is None
    assert [each["pricing"] for each in entry["input_modalities"]] == [
        [{"type": "prompt", "unit": "token", "cost_usd": "0.000001"}]
    ]


@pytest.mark.parametrize("quantization", [*QUANTIZATIONS, ""])
async def test_the_openrouter_document_keeps_to_the_schema(stack: Stack, client: Client, quantization: str) -> None:
    some: Json = {"quantization": quantization} if quantization else {}
    rich = await stack.offer_new(**{**RICH, **some})
    plain = await stack.offer_new(prices=[{"per_million": {"prompt": "0.000001", "completion": 2}}], **some)
    every = await stack.offer_new(
        **some,
        input_modalities=list(INPUT_MODALITIES),
        sampling_parameters=list(SAMPLING_PARAMETERS),
        features=list(FEATURES),
        prices=[{"per_million": dict.fromkeys(PER_MILLION_KEYS, "0.5"), "per_unit": {"request": "0"}}],
    )
    answer = await client.ask("GET", "/v1/models?format=openrouter")
    assert {rich, plain, every} <= ids(answer)
    jsonschema_rs.validator_for(OPENROUTER_DOCUMENT).validate(answer.json)


async def test_prices_are_never_written_with_an_exponent(stack: Stack, client: Client) -> None:
    await stack.offer_new(prices=[{"per_million": {"prompt": "0.000000000001", "completion": "0.1"}}])
    for query in ("", "?format=openrouter"):
        text = (await client.ask("GET", f"/v1/models{query}")).body.decode()
        assert re.search(r'"[0-9.]+[eE][-+]?[0-9]+"', text) is None


@pytest.mark.parametrize("query", ["format=other", "format=openrouter&format=openrouter", "format=%ff"])
async def test_another_format_is_400(client: Client, query: str) -> None:
    answer = await client.ask("GET", f"/v1/models?{query}")
    assert (answer.status, answer.error["param"]) == (400, "format")


# ---- the default catalog ----


async def test_the_catalog_that_ships_is_the_documented_one(fresh_stack: OpenStack) -> None:
    stack = await fresh_stack()
    assert catalog_svc.__file__ is not None
    document = yaml.safe_load((Path(catalog_svc.__file__).parent / "default_catalog.yaml").read_text())
    document["deployments"] = [
        {"id": f"d{number}", "model": model["id"], "kind": "vllm", "base_url": f"{stack.upstream.url}/v1"}
        for number, model in enumerate(document["models"])
    ]
    await stack.apply(json.dumps(document))
    customer = await stack.customer()
    client = Client(stack.edge_url, customer.secret)
    listed = {each["id"]: each for each in (await client.ask("GET", "/v1/models")).json["data"]}
    assert {
        model_id: (
            each["context_length"],
            each["pricing"]["prompt"],
            each["pricing"]["input_cache_read"],
            each["pricing"]["completion"],
        )
        for model_id, each in listed.items()
    } == {
        "deepseek-ai/DeepSeek-V4-Flash": (1_000_000, "0.0000001", "0.0000001", "0.00000028"),
        "Qwen/Qwen3.6-35B-A3B": (262_144, "0.00000015", "0.00000005", "0.000001"),
        "moonshotai/Kimi-K2.6": (262_144, "0.0000007", "0.0000007", "0.000004"),
    }
    openrouter = (await client.ask("GET", "/v1/models?format=openrouter")).json
    jsonschema_rs.validator_for(OPENROUTER_DOCUMENT).validate(openrouter)
    deepseek = listed["deepseek-ai/DeepSeek-V4-Flash"]
    assert (deepseek["name"], deepseek["max_output_length"]) == ("DeepSeek: V4 Flash", 128_000)
    assert (deepseek["quantization"], deepseek["supported_features"]) == ("bf16", ["tools", "json_mode"])
    for model_id in listed:
        assert (await client.chat(chat(model=model_id, max_tokens=5))).status == 200
    charges = sorted(each.charged_nanousd for each in await stack.settled(customer, 3))
    assert charges == [3 * 100 + 5 * 280, 3 * 150 + 5 * 1000, 3 * 700 + 5 * 4000]
