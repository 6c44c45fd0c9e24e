"""GET /v1/models: OpenAI's fields and OpenRouter's provider fields together (docs/http-api.md, "Models")."""

from collections.abc import Iterable
from typing import Any

from edge.routing.snapshot import Model, PricePoint


def models_list(models: Iterable[tuple[Model, PricePoint]]) -> dict[str, Any]:
    """The whole list, in catalog order."""
    return {"object": "list", "data": [model_entry(model, point) for model, point in models]}


def model_entry(model: Model, point: PricePoint) -> dict[str, Any]:
    """One model. Prices are decimal strings in USD per single unit, all five always present and true: what has no
    price of its own costs what it says here ("0" for image and request; cached tokens cost `prompt`)."""
    pb, vector = model.pb, point.vector
    return {
        "id": pb.model_id,
        "object": "model",
        "created": pb.create_time.seconds,
        "owned_by": pb.owned_by,
        "hugging_face_id": pb.hugging_face_id or None,
        "name": pb.name,
        "description": pb.description,
        "input_modalities": list(pb.input_modalities),
        "output_modalities": list(pb.output_modalities),
        "quantization": pb.quantization or None,
        "context_length": pb.context_length,
        "max_output_length": pb.max_output_length,
        "pricing": {
            "prompt": vector.prompt,
            "completion": vector.completion,
            "image": vector.image or "0",
            "request": vector.request or "0",
            "input_cache_read": vector.input_cache_read or vector.prompt,
        },
        "supported_sampling_parameters": list(pb.supported_sampling_parameters),
        "supported_features": list(pb.supported_features),
        "datacenters": [{"country_code": code} for code in pb.datacenters],
        "deprecation_date": pb.deprecation_time.ToDatetime().date().isoformat()
        if pb.HasField("deprecation_time")
        else None,
    }
