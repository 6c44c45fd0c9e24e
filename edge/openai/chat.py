"""POST /v1/chat/completions: reading a body.

The common body costs two passes in C and a few dictionary look-ups: msgspec splits it (body.py), then decodes it into
the types below, which admit nothing but text and functions. What fits them is proven to hold no media, no files and no
hosted tools; whatever does not fit is read exactly, in Python.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edge.openai.ask import CHAT, Ask
from edge.openai.body import scan
from edge.openai.exact import include_usage_from, read_exactly
from edge.openai.plain import ABSENT, Count, Empty, Name, Typed, check_schema, plain_besides


class TextPart(Typed):
    type: Literal["text"]
    text: str
    cache_control: dict[str, str] | None = None


class FunctionCall(Typed):
    name: str | None = None
    arguments: str | None = None


class ToolCall(Typed):
    id: str | None = None
    type: Literal["function"] | None = None
    index: int | None = None
    function: FunctionCall | None = None


class Message(Typed):
    role: str
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    annotations: Empty | None = None
    audio: None = None
    function_call: FunctionCall | None = None


class Function(Typed):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    strict: bool | None = None


class Tool(Typed):
    type: Literal["function"]
    function: Function


class FunctionName(Typed):
    name: str


class ToolChoice(Typed):
    type: Literal["function"]
    function: FunctionName


class _Head(msgspec.Struct, gc=False):
    model: Name
    messages: list[Message]
    stream: bool | None = None
    max_tokens: Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream_options: msgspec.Raw = ABSENT
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    max_completion_tokens: Count | None = None
    n: Count | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    parallel_tool_calls: bool | None = None
    user: str | None = None


# body, tools, tool, function
_ABOVE_PARAMETERS = 4
_TYPED = frozenset(_Head.__struct_fields__)
_head_from = msgspec.json.Decoder(_Head).decode


def read_chat(body: bytes) -> Ask:
    """What a Chat Completions body asks for.

    Raises:
        RequestError: 400; not JSON, not an object, or a field that decides is missing, given twice or of a wrong type.
    """
    members = scan(body)
    if not members.plain or not plain_besides(members, _TYPED):
        return read_exactly(CHAT, members)
    try:
        head = _head_from(body)
    except msgspec.ValidationError:
        return read_exactly(CHAT, members)
    include_usage = None
    if head.stream_options is not ABSENT:
        include_usage, continuous = include_usage_from(head.stream_options)
        if continuous:
            return read_exactly(CHAT, members)
    if head.tools:
        for tool in head.tools:
            check_schema(tool.function.parameters, _ABOVE_PARAMETERS)
    limit = head.max_tokens
    if head.max_completion_tokens is not None:
        limit = max(head.max_completion_tokens, limit or 0)
    return Ask(
        resource=CHAT,
        body=body,
        members=members,
        model=head.model,
        stream=head.stream is True,
        include_usage=include_usage,
        n=head.n or 1,
        max_output_tokens=limit,
    )
