"""A search of conversations and tools for what cannot be metered or must not be reached: the exact path.

Bodies of plain text never come here: the types in chat.py and responses.py prove that there is nothing to find.
Here every object is seen with all its members, those given twice included, and names are compared unescaped.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from edge.openai.fields import GRAMMAR_BYTES_MAX

_TEXT_TYPES = frozenset(
    {
        # content parts
        *("text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text"),
        *("thinking", "redacted_thinking", "reasoning.text", "reasoning.summary", "reasoning.encrypted"),
        # input items, and calls inside messages
        *(
            "message",
            "reasoning",
            "function_call",
            "function_call_output",
            "custom_tool_call",
            "custom_tool_call_output",
        ),
        *("compaction", "function", "custom"),
    }
)
_MEDIA_TYPES = frozenset({"image_url", "input_image", "video_url", "file", "input_file"})
_AUDIO_TYPES = frozenset({"input_audio", "output_audio", "audio", "audio_url"})
_KNOWN_TYPES = _TEXT_TYPES | _MEDIA_TYPES | _AUDIO_TYPES

_MEDIA = frozenset({"image_url", "video_url", "audio_url", "file_url"})
_AUDIO = frozenset({"audio", "input_audio", "audio_url", "audio_data"})
# Members that some server takes media or embeddings from, whatever the part's type says.
_UNKNOWN_MEDIA = frozenset(
    {
        *("image_embeds", "audio_embeds", "video_embeds", "prompt_embeds", "image_pil"),
        *("image_data", "video_data", "images", "audios", "videos"),
    }
)
_SEALED = frozenset({"encrypted_content"})
_SEALED_TYPES = frozenset({"compaction", "redacted_thinking", "reasoning.encrypted"})
# Members that no server looks into for media: arguments and citations are the model's own words or the client's notes.
_NOT_SEARCHED = frozenset({"arguments", "annotations", "logprobs", "metadata", "cache_control"})
_TOOL_TYPES = frozenset({"function", "custom"})
_CHOICE_TYPES = _TOOL_TYPES | {"allowed_tools"}


class Finding(msgspec.Struct, frozen=True, gc=False):
    """Something that is refused unless the operator allows `name` (a row of fields.REFUSED); `param` is where it is."""

    name: str
    param: str


class Pairs(list[tuple[str, Any]]):
    """A JSON object with its members in order, those given twice included."""


_parse_text = json.JSONDecoder(object_pairs_hook=Pairs, parse_float=lambda _: 0.0, parse_int=len).decode


def parse(value: bytes) -> Any:
    """A JSON value for searching: objects as Pairs, strings exact, numbers meaningless."""
    return _parse_text(value.decode())


class Search:
    """What was found so far in one request. Each name is kept once, with the first place."""

    def __init__(self) -> None:
        self.findings: dict[str, Finding] = {}
        self.images = 0  # image and video parts
        self.opaque = False  # something whose tokens its bytes do not bound

    def found(self, name: str, param: str) -> None:
        self.findings.setdefault(name, Finding(name, param))

    # ---- conversations ----

    def conversation(self, field: str, value: Any) -> None:
        if field == "input" and isinstance(value, list) and not isinstance(value, Pairs):
            for index, item in enumerate(value):
                if isinstance(item, Pairs):
                    self._reference(item, f"input[{index}]")
        self._any(value, field, typed=False, media=False)

    def _reference(self, item: Pairs, here: str) -> None:
        """An input item that brings nothing of its own is looked up by its id, in whatever the upstream has stored."""
        says = {name.casefold() for name, value in item if value not in (None, "", [])}
        if not says & {"type", "role"}:
            self.found("item_reference", here)
        elif ("type", "reasoning") in item and "id" in says and not says & {"content", "encrypted_content"}:
            self.found("reasoning_reference", here)

    def _any(self, value: Any, path: str, *, typed: bool, media: bool) -> None:
        if isinstance(value, Pairs):
            self._object(value, path, typed, media)
        elif isinstance(value, list):
            for index, child in enumerate(value):
                self._any(child, f"{path}[{index}]", typed=True, media=media)

    def _object(self, pairs: Pairs, path: str, typed: bool, media: bool) -> None:
        """One object. typed: its `type` says what part or item it is. media: it stands where a medium is described."""
        media = media or any(
            member in _MEDIA or (member == "type" and isinstance(value, str) and value in _MEDIA_TYPES)
            for member, value in ((name.casefold(), value) for name, value in pairs)
        )
        for name, value in pairs:
            member = name.casefold()
            if value is None or member in _NOT_SEARCHED:
                continue
            here = f"{path}.{name}"
            if member == "type" and typed:
                self._type(value, here)
            elif member in _AUDIO:
                self._opaque("audio", here)
                if member == "audio_url":
                    self._url(value, here)
                if "id" in (_names(value) or ()):  # an earlier answer's sound, kept by id alone
                    self.found("file_id", f"{here}.id")
            elif member in _UNKNOWN_MEDIA:
                self._opaque("content_type", here)
            elif member == "file_id" or (member == "file" and isinstance(value, str)):
                self._opaque("file_id", here)
            elif member in _MEDIA or (member == "url" and media):
                self.opaque = True
                self.images += member in ("image_url", "video_url")
                self._url(value, here)
            elif member in ("file", "file_data"):
                self.opaque = True
                if isinstance(value, str) and ":" in value[:64]:  # base64 has no colon, so a URL it is
                    self._url(value, here)
            elif member in _SEALED:
                self.opaque = True
            elif member == "uuid" and media:
                self._opaque("uuid", here)  # vLLM takes a medium from its cache by this alone, whoever put it there
            self._any(value, here, typed=member in ("content", "output"), media=member in _MEDIA)

    def _type(self, value: Any, here: str) -> None:
        if not isinstance(value, str) or value not in _KNOWN_TYPES:
            self._opaque("item_reference" if value == "item_reference" else "content_type", here)
        elif value in _AUDIO_TYPES:
            self._opaque("audio", here)
        elif value in _MEDIA_TYPES or value in _SEALED_TYPES:
            self.opaque = True

    def _opaque(self, name: str, here: str) -> None:
        self.opaque = True
        self.found(name, here)

    def _url(self, value: Any, here: str) -> None:
        """Every string where a URL is expected: only `data:` stays inside the request."""
        if isinstance(value, str):
            if not value.startswith("data:"):
                self.found("image_url", here)
        elif isinstance(value, Pairs):
            for name, inner in value:
                if name.casefold() != "url" and isinstance(inner, str) and (":" in inner or inner.startswith("/")):
                    self._url(inner, f"{here}.{name}")  # a server's own idea of where the address stands
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                self._url(inner, f"{here}[{index}]")

    # ---- tools ----

    def tools(self, field: str, value: Any) -> None:
        for index, tool in enumerate(value):
            here = f"{field}[{index}]"
            if not isinstance(tool, Pairs):
                continue  # upstream's to judge; it is nothing that could be run
            types = [inner for name, inner in tool if name.casefold() == "type"]
            if not types or any(not isinstance(inner, str) or inner not in _TOOL_TYPES for inner in types):
                self.found("tools", f"{here}.type")
            self._grammar(tool, here)

    def tool_choice(self, value: Any) -> None:
        """A choice may name a tool that is not in `tools`: the same types, and `allowed_tools` over them."""
        if not isinstance(value, Pairs):
            return
        for name, inner in value:
            if name.casefold() == "type" and (not isinstance(inner, str) or inner not in _CHOICE_TYPES):
                self.found("tools", f"tool_choice.{name}")
            elif name.casefold() == "tools" and isinstance(inner, list):
                self.tools("tool_choice.tools", inner)
            elif name.casefold() == "allowed_tools":
                self.tool_choice(inner)

    def _grammar(self, value: Any, here: str) -> None:
        """A custom tool carries a grammar of its own: `format.definition`, or `format.grammar.definition`."""
        if not isinstance(value, Pairs):
            return
        for name, inner in value:
            if name == "definition" and isinstance(inner, str) and len(inner) > GRAMMAR_BYTES_MAX:
                self.found("grammar", f"{here}.{name}")
            elif name in ("custom", "format", "grammar"):
                self._grammar(inner, f"{here}.{name}")

    # ---- the rest ----

    def modalities(self, value: Any) -> None:
        if value == ["text"] or value == []:
            return
        self.opaque = True
        only_sound = isinstance(value, list) and all(inner == "text" or inner == "audio" for inner in value)
        self.found("audio" if only_sound else "modalities", "modalities")

    def template_arguments(self, value: Any) -> None:
        """What a client passes to the chat template reaches the renderer, which has two options of its own."""
        for name in _names(value) or ():
            if name in ("chat_template", "tokenize"):
                self.found("chat_template", f"chat_template_kwargs.{name}")


def _names(value: Any) -> set[str] | None:
    return {name.casefold() for name, _ in value} if isinstance(value, Pairs) else None
