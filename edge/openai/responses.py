"""POST /v1/responses: reading a body. The same two ways as chat.py: proven plain in C, or read exactly in Python."""

from __future__ import annotations

from typing import Literal

import msgspec

from edge.openai.ask import RESPONSES, Ask
from edge.openai.body import scan
from edge.openai.exact import read_exactly
from edge.openai.plain import ABSENT, Count, Empty, Name, Typed, check_schema, plain_besides


class TextPart(Typed):
    type: Literal["input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text"]
    text: str | None = None
    refusal: str | None = None
    annotations: Empty | None = None
    logprobs: Empty | None = None


class Item(Typed):
    type: (
        Literal[
            "message",
            "function_call",
            "function_call_output",
            "custom_tool_call",
            "custom_tool_call_output",
            "reasoning",
        ]
        | None
    ) = None
    role: str | None = None
    content: str | list[TextPart] | None = None
    id: str | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[TextPart] | None = None
    summary: list[TextPart] | None = None
    encrypted_content: str | None = None
    phase: str | None = None


class Tool(Typed):
    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    strict: bool | None = None


class ToolChoice(Typed):
    type: Literal["function"]
    name: str


class _Head(msgspec.Struct, gc=False):
    model: Name
    input: str | list[Item]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    user: str | None = None


_ABOVE_PARAMETERS = 3  # body, tools, tool
_TYPED = frozenset(_Head.__struct_fields__)
_head_from = msgspec.json.Decoder(_Head).decode


def read_responses(body: bytes) -> Ask:
    """What a Responses body asks for.

    Raises:
        RequestError: 400; not JSON, not an object, or a field that decides is missing, given twice or of a wrong type.
    """
    members = scan(body)
    if not members.plain or not plain_besides(members, _TYPED):
        return read_exactly(RESPONSES, members)
    try:
        head = _head_from(body)
    except msgspec.ValidationError:
        return read_exactly(RESPONSES, members)
    opaque = False
    if not isinstance(head.input, str):
        for item in head.input:
            if item.type is None and item.role is None:  # OpenAI takes a lone id for a reference to a stored item
                return read_exactly(RESPONSES, members)
            if item.type == "reasoning" and not item.content and not item.encrypted_content:
                return read_exactly(RESPONSES, members)
            opaque = opaque or item.encrypted_content is not None
    if head.tools:
        for tool in head.tools:
            check_schema(tool.parameters, _ABOVE_PARAMETERS)
    return Ask(
        resource=RESPONSES,
        body=body,
        members=members,
        model=head.model,
        stream=head.stream is True,
        max_output_tokens=head.max_output_tokens,
        opaque=opaque,
    )
