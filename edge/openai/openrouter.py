"""GET /v1/models?format=openrouter: the document that OpenRouter reads from its providers, schema version 2.4.

Source: https://openrouter.ai/docs/guides/providers/integration. Its members and no others. Prices that are not
charged are left out, as that page asks; what we cannot say exactly (value ranges of sampling parameters, which are the
upstream's) is declared as supported with an unknown domain rather than guessed.
"""

from collections.abc import Iterable
from typing import Any

from edge.routing.snapshot import Model, PricePoint
from protos.usage.v1 import usage_pb2

SCHEMA_VERSION = "2.4"
# Image inputs come as data: URLs only (edge/openai/refuse.py), which OpenRouter calls base64.
_IMAGE_INPUTS = {"sources": {"type": "enum", "values": ["base64"]}}
# Features that are also names of parameters there; the others have no place in the document.
_FEATURE_PARAMETERS = {
    "tools": "tools",
    "structured_outputs": "structured_outputs",
    "json_mode": "response_format",
    "reasoning": "reasoning",
    "logprobs": "logprobs",
}


def openrouter_document(models: Iterable[tuple[Model, PricePoint]]) -> dict[str, Any]:
    """The whole document."""
    return {"data": [_entry(model, point.vector) for model, point in models]}


def _entry(model: Model, price: usage_pb2.PriceVector) -> dict[str, Any]:
    pb = model.pb
    entry: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "id": pb.model_id,
        "name": pb.name,
        "hugging_face_id": pb.hugging_face_id,
        "created": pb.create_time.seconds,
        "quantization": pb.quantization or None,
        "description": pb.description,
        "input_modalities": [_input(modality, model, price) for modality in pb.input_modalities],
        "output_modalities": [_output(modality, model, price) for modality in pb.output_modalities],
    }
    if _charged(price.request):
        entry["pricing"] = [{"type": "request", "unit": "request", "cost_usd": price.request}]
    if pb.HasField("deprecation_time"):
        entry["deprecation_date"] = pb.deprecation_time.ToDatetime().date().isoformat()
    if pb.datacenters:
        entry["datacenters"] = [{"country_code": code} for code in pb.datacenters]
    return entry


def _input(modality: str, model: Model, price: usage_pb2.PriceVector) -> dict[str, Any]:
    if modality == "image":
        image: dict[str, Any] = {"type": modality, "supported_inputs": _IMAGE_INPUTS}
        prices = [_sku("prompt", "token", price.prompt)]  # the upstream counts an image's tokens into the prompt
        if _charged(price.image):
            prices.append(_sku("prompt", "image", price.image))
        return {**image, "pricing": prices}
    if modality != "text":
        return {"type": modality, "pricing": [_sku("prompt", "token", price.prompt)]}
    prices = [_sku("prompt", "token", price.prompt)]
    if price.input_cache_read:
        prices.append({**_sku("cached_prompt", "token", price.input_cache_read), "implicit": True})
    if price.input_cache_write:
        prices.append({**_sku("cache_write", "token", price.input_cache_write), "implicit": True})
    return {
        "type": "text",
        "supported_inputs": {"max_context_length": {"value": model.context_length, "unit": "token"}},
        "pricing": prices,
    }


def _output(modality: str, model: Model, price: usage_pb2.PriceVector) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for name in model.pb.supported_sampling_parameters:
        parameters[name] = {"type": "unknown"}
    parameters["max_tokens"] = {"type": "integer", "min": 1, "max": model.max_output_length, "unit": "token"}
    for feature in model.pb.supported_features:
        if feature in _FEATURE_PARAMETERS:
            parameters[_FEATURE_PARAMETERS[feature]] = {"type": "boolean"}
    entry: dict[str, Any] = {"type": modality, "streaming": True, "supported_parameters": parameters}
    if modality == "text":
        entry["max_length"] = {"value": model.max_output_length, "unit": "token"}
    return {**entry, "pricing": [_sku("completion", "token", price.completion)]}


def _sku(kind: str, unit: str, cost_usd: str) -> dict[str, Any]:
    return {"type": kind, "unit": unit, "cost_usd": cost_usd}


def _charged(cost_usd: str) -> bool:
    return cost_usd.strip("0.") != ""
