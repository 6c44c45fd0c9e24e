"""A streamed answer as the one JSON answer that it stands for. Pure, and bounded: what is beyond is marked, not kept.

assembly.feed(bytes as the client gets them), any number of times; then assembly.finish()
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import msgspec

from edge.upstream.sse import EventSplitter, EventTooLarge, event_data, is_event

Json = dict[str, Any]

# What an object, a list's element or a number counts for against the bound, beside its texts.
_NODE_BYTES = 32


class Text:
    """A text that comes in pieces; kept as UTF-8, since a list of small texts would take ten times the memory."""

    __slots__ = ("utf8",)

    def __init__(self, piece: bytes) -> None:
        self.utf8 = bytearray(piece)


class Elements:
    """A list whose elements come in pieces: those with an index by it, the others in the order in which they came."""

    __slots__ = ("by_index", "others")

    def __init__(self) -> None:
        self.by_index: dict[int, Any] = {}
        self.others: list[Any] = []


class Assembly(ABC):
    """One stream. `truncated`: something of it is not in the answer."""

    def __init__(self, bytes_max: int) -> None:
        self.truncated = False
        self._bytes_left = bytes_max
        self._bytes_max = bytes_max
        self._splitter = EventSplitter()
        self._broken = False
        self._seen = False

    def feed(self, data: bytes) -> None:
        """Takes the next bytes, wherever they were cut."""
        if self._broken:
            return
        try:
            pieces = self._splitter.feed(data)
        except EventTooLarge:
            self._broken = self.truncated = True
            return
        for piece in pieces:
            if not is_event(piece):
                continue
            found = event_data(piece)
            if found is None or found.strip() == b"[DONE]":
                continue
            if len(found) > self._bytes_max:
                self.truncated = True
                continue
            try:
                event = msgspec.json.decode(found)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.truncated = True
                continue
            if isinstance(event, dict):
                self._seen = True
                self._take(event, len(found))

    def finish(self) -> bytes | None:
        """The answer as JSON; None where no event came."""
        return msgspec.json.encode(whole(self._answer())) if self._seen else None

    @abstractmethod
    def _take(self, event: Json, size: int) -> None:
        """Takes one event of `size` bytes, which is not above the bound."""

    @abstractmethod
    def _answer(self) -> Json:
        """What came so far; may have Text and Elements in it."""

    def _fits(self, size: int) -> bool:
        if size > self._bytes_left:
            self.truncated = True
            return False
        self._bytes_left -= size
        return True

    def _add_text(self, target: Json, name: str, piece: str) -> None:
        if not piece:
            target.setdefault(name, piece)
            return
        utf8 = piece.encode()
        if not self._fits(len(utf8)):
            return
        known = target.get(name)
        if isinstance(known, Text):
            known.utf8 += utf8
        else:
            target[name] = Text(known.encode() + utf8 if isinstance(known, str) else utf8)

    def _merge(self, target: Json, delta: Mapping[str, Any]) -> None:
        """Adds a delta as OpenAI's own clients do: texts are joined, objects merged, elements found by their index."""
        for name, value in delta.items():
            if value is None:
                target.setdefault(name, None)
            elif isinstance(value, str):
                self._merge_text(target, name, value)
            elif isinstance(value, dict):
                known = target.get(name)
                if not isinstance(known, dict):
                    if not self._fits(_NODE_BYTES + len(name)):
                        continue
                    known = target[name] = {}
                self._merge(known, value)
            elif isinstance(value, list):
                known = target.get(name)
                if not isinstance(known, Elements):
                    known = target[name] = Elements()
                self._merge_list(known, value)
            elif name in target or self._fits(_NODE_BYTES + len(name)):
                target[name] = value

    def _merge_text(self, target: Json, name: str, value: str) -> None:
        known = target.get(name)
        if name in _WHOLE_TEXTS:  # some servers repeat them in every event
            if not known and self._fits(len(value) + _NODE_BYTES):
                target[name] = value
        elif not (name == "name" and isinstance(known, Text) and known.utf8 == value.encode()):
            self._add_text(target, name, value)

    def _merge_list(self, known: Elements, values: list[Any]) -> None:
        for value in values:
            index = value.get("index") if isinstance(value, dict) else None
            if isinstance(index, int):
                if index in known.by_index or self._fits(_NODE_BYTES):
                    self._merge(known.by_index.setdefault(index, {}), value)
            elif self._fits(_NODE_BYTES + _size(value)):
                known.others.append(value)


_WHOLE_TEXTS = frozenset({"id", "role", "type"})


def _size(value: Any) -> int:
    return len(msgspec.json.encode(value))


def whole(value: Any) -> Any:
    """A value without Text and Elements in it."""
    if isinstance(value, Text):
        return value.utf8.decode()
    if isinstance(value, Elements):
        return [whole(value.by_index[index]) for index in sorted(value.by_index)] + value.others
    if isinstance(value, dict):
        return {name: whole(member) for name, member in value.items()}
    return [whole(member) for member in value] if isinstance(value, list) else value


class ChatAssembly(Assembly):
    """chat.completion.chunk events as one chat.completion."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(bytes_max)
        self._top: Json = {}
        self._choices: dict[int, Json] = {}

    def _take(self, event: Json, size: int) -> None:
        for name, value in event.items():
            if name == "choices" and isinstance(value, list):
                for choice in value:
                    if isinstance(choice, dict):
                        self._take_choice(choice)
            elif value is not None and name not in ("choices", "object"):
                before = self._top.get(name)
                if before == value:
                    continue
                if self._fits(_size(value) + _NODE_BYTES):
                    self._top[name] = value  # the last one says it best: usage that runs along

    def _take_choice(self, choice: Json) -> None:
        index = choice.get("index", 0)
        if not isinstance(index, int):
            return
        known = self._choices.get(index)
        if known is None:
            if not self._fits(_NODE_BYTES):
                return
            known = self._choices[index] = {"index": index, "message": {}}
        for name, value in choice.items():
            if name == "delta":
                if isinstance(value, dict):
                    self._merge(known["message"], value)
            elif isinstance(value, dict):
                self._merge(known, {name: value})
            elif value is None:
                known.setdefault(name, None)
            elif known.get(name) != value and self._fits(_size(value) + _NODE_BYTES):
                known[name] = value

    def _answer(self) -> Json:
        top = {name: value for name, value in self._top.items() if name not in ("usage", "error")}
        answer: Json = {**top, "object": "chat.completion"}
        if self._choices or "error" not in self._top:
            answer["choices"] = [self._choices[index] for index in sorted(self._choices)]
        return answer | {name: self._top[name] for name in ("usage", "error") if name in self._top}
