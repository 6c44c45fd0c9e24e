"""OpenRouter's typed model document, schema version 2.4, as a JSON Schema: what a provider's list is held to.

OpenRouter publishes no schema to validate by. This one is read off its guide for providers
(https://openrouter.ai/docs/guides/providers/integration) and off documents that others serve to it. Objects are closed:
a member that is not here is one that nobody there reads.
"""

from typing import Any

Schema = dict[str, Any]

QUANTIZATIONS = ["int4", "int8", "fp4", "mxfp4", "nvfp4", "fp6", "fp8", "mxfp8", "fp16", "bf16", "fp32"]


def _closed(required: Schema, **optional: Schema) -> Schema:
    properties = {**required, **optional}
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(required),
        "additionalProperties": False,
    }


def _one_of(*words: str) -> Schema:
    return {"enum": list(words)}


def _list_of(items: Schema, at_least: int = 0) -> Schema:
    return {"type": "array", "items": items, "minItems": at_least}


_TEXT: Schema = {"type": "string", "minLength": 1}
_COUNT: Schema = {"type": "integer", "minimum": 1}
_NUMBER: Schema = {"type": "number"}
_TOKENS = _closed({"value": _COUNT, "unit": _one_of("token")})
_ENUM = _closed({"type": _one_of("enum"), "values": _list_of(_TEXT, 1)})

# Decimals in plain writing, as strings: the guide names floating point as the reason.
_COST: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"}


def _price(types: tuple[str, ...], units: tuple[str, ...], **optional: Schema) -> Schema:
    return _closed({"type": _one_of(*types), "unit": _one_of(*units), "cost_usd": _COST}, **optional)


_INPUT_PRICE: Schema = {
    "oneOf": [
        _price(("prompt",), ("token", "image", "second")),
        _price(("cached_prompt", "cache_write"), ("token",), implicit={"type": "boolean"}, ttl_seconds=_COUNT),
    ]
}
_OUTPUT_PRICE = _price(("completion", "internal_reasoning"), ("token", "image"))
_ROOT_PRICE = _price(("request",), ("request",))

_PARAMETER: Schema = {
    "oneOf": [
        _closed({"type": _one_of("boolean", "unknown")}),
        _closed({"type": _one_of("range"), "min": _NUMBER, "max": _NUMBER}),
        _closed(
            {"type": _one_of("integer")},
            min={"type": "integer"},
            max={"type": "integer"},
            unit=_one_of("token"),
        ),
        _ENUM,
        _closed({"type": _one_of("array"), "items": {"type": "object"}}, max_items=_COUNT),
    ]
}

_INPUT: Schema = {
    "oneOf": [
        _closed(
            {
                "type": _one_of("text"),
                "supported_inputs": _closed({"max_context_length": _TOKENS}, max_prompt_length=_TOKENS),
                "pricing": _list_of(_INPUT_PRICE, 1),
            }
        ),
        _closed(
            {"type": _one_of("image", "audio", "video", "file")},
            supported_inputs=_closed({}, sources=_ENUM, formats=_ENUM, detail_levels=_ENUM),
            pricing=_list_of(_INPUT_PRICE, 1),
        ),
    ]
}
_OUTPUT = _closed(
    {
        "type": _one_of("text"),
        "streaming": {"type": "boolean"},
        "supported_parameters": {"type": "object", "additionalProperties": _PARAMETER},
        "max_length": _TOKENS,
        "pricing": _list_of(_OUTPUT_PRICE, 1),
    }
)

_MODEL = _closed(
    {
        "schema_version": {"const": "2.4"},
        "id": _TEXT,
        "name": _TEXT,
        "hugging_face_id": {"type": "string"},
        "created": _COUNT,
        "quantization": {"enum": [*QUANTIZATIONS, None]},
        "input_modalities": _list_of(_INPUT, 1),
        "output_modalities": _list_of(_OUTPUT, 1),
    },
    description={"type": "string"},
    tokenizer=_TEXT,
    pricing=_list_of(_ROOT_PRICE, 1),
    deprecation_date={"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
    datacenters=_list_of(_closed({"country_code": {"type": "string", "pattern": "^[A-Z]{2}$"}}), 1),
    is_ready={"type": "boolean"},
)

OPENROUTER_DOCUMENT = _closed({"data": _list_of(_MODEL)})
