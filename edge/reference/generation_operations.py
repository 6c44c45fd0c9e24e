"""Generation and models in the OpenAPI document: only what the edge itself reads is described closely, since everything
else of a body is the model server's."""

from edge.reference.operation import READ_ERRORS, WRITE_ERRORS, Json, body, json_content, parameter, ref, responses

_ERRORS = (*WRITE_ERRORS, "402", "404", "409", "422", "502", "504")
_NULLABLE_COUNT: Json = {"type": ["integer", "null"], "minimum": 1}
_STREAM: Json = {"type": ["boolean", "null"], "description": "Whether the answer comes as server-sent events."}
_IDEMPOTENCY_KEY = parameter(
    "Idempotency-Key",
    "header",
    {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
    "The same key with the same endpoint and body is charged once within a day.",
)
_ANSWERS: Json = {**json_content({"type": "object"}), "text/event-stream": {"schema": {"type": "string"}}}

GENERATION_SCHEMAS: Json = {
    "ChatCompletionRequest": {
        "type": "object",
        "description": "As OpenAI's; what is not named here passes to the model server as it is.",
        "required": ["model"],
        "properties": {
            "model": {"type": "string", "description": "An id from GET /v1/models."},
            "messages": {"description": "The conversation, as OpenAI's."},
            "stream": _STREAM,
            "max_tokens": _NULLABLE_COUNT,
            "max_completion_tokens": _NULLABLE_COUNT,
        },
    },
    "ResponsesRequest": {
        "type": "object",
        "description": "As OpenAI's; what is not named here passes to the model server as it is.",
        "required": ["model"],
        "properties": {
            "model": {"type": "string", "description": "An id from GET /v1/models."},
            "input": {"description": "A text or items, as OpenAI's."},
            "stream": _STREAM,
            "max_output_tokens": _NULLABLE_COUNT,
        },
    },
    "Model": {
        "type": "object",
        "required": ["id", "object", "created", "owned_by", "pricing"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "model"},
            "created": {"type": "integer"},
            "owned_by": {"type": "string"},
            "context_length": {"type": "integer"},
            "max_output_length": {"type": "integer"},
            "pricing": {
                "type": "object",
                "description": "Decimal texts in USD per single unit.",
                "additionalProperties": {"type": "string"},
            },
        },
    },
    "ModelList": {
        "type": "object",
        "required": ["data"],
        "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": {"type": "object"}}},
    },
}


def _generation(operation_id: str, summary: str, schema: str) -> Json:
    return {
        "post": {
            "operationId": operation_id,
            "tags": ["generation"],
            "summary": summary,
            "parameters": [_IDEMPOTENCY_KEY],
            "requestBody": body(ref(schema)),
            "responses": responses("The model server's own answer", _ANSWERS, _ERRORS, generates=True),
        }
    }


GENERATION_PATHS: Json = {
    "/v1/chat/completions": _generation("create_chat_completion", "A chat completion", "ChatCompletionRequest"),
    "/v1/responses": _generation("create_response", "A response", "ResponsesRequest"),
    "/v1/models": {
        "get": {
            "operationId": "list_models",
            "tags": ["models"],
            "summary": "The models that this key can use now",
            "parameters": [
                parameter("format", "query", {"const": "openrouter"}, "OpenRouter's document instead of OpenAI's.")
            ],
            "responses": responses("The models", json_content(ref("ModelList")), READ_ERRORS),
        }
    },
    "/v1/models/{id}": {
        "parameters": [
            parameter("id", "path", {"type": "string", "minLength": 1}, "The model's id, with slashes.", required=True)
        ],
        "get": {
            "operationId": "get_model",
            "tags": ["models"],
            "summary": "One model",
            "responses": responses("The model", json_content(ref("Model")), (*READ_ERRORS, "404")),
        },
    },
}
