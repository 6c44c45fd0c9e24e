"""A stream of the Responses API as one response: its last event has it; one that broke off is put together."""

from typing import Any

from edge.logs.assembly import Assembly, Json

_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
# A delta's event -> the item's list and the event's index into it (none: the item itself), and the text's name.
_DELTAS = {
    "response.output_text.delta": ("content", "content_index", "text"),
    "response.refusal.delta": ("content", "content_index", "refusal"),
    "response.reasoning_text.delta": ("content", "content_index", "text"),
    "response.reasoning_summary_text.delta": ("summary", "summary_index", "text"),
    "response.function_call_arguments.delta": ("", "", "arguments"),
    "response.custom_tool_call_input.delta": ("", "", "input"),
}
_PARTS = {
    "response.content_part.added": ("content", "content_index"),
    "response.reasoning_summary_part.added": ("summary", "summary_index"),
}
_NODE_BYTES = 32


class _Item:
    """An output item that is under way. Its lists are kept by index, until it is asked for as a whole."""

    def __init__(self, members: Json) -> None:
        self.members = {name: value for name, value in members.items() if name not in ("content", "summary")}
        self.lists: dict[str, dict[int, Json]] = {}
        for name in ("content", "summary"):
            value = members.get(name)
            if isinstance(value, list):
                self.lists[name] = {n: part for n, part in enumerate(value) if isinstance(part, dict)}
        self.delta_bytes = 0

    def whole(self) -> Json:
        lists = {name: [parts[index] for index in sorted(parts)] for name, parts in self.lists.items()}
        return {**self.members, **lists}


class ResponsesAssembly(Assembly):
    """The `response` of the last event, or what came of it."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(bytes_max)
        self._response: Json = {}
        self._ended = False
        self._error: Json | None = None
        self._items: dict[int, _Item] = {}

    def _take(self, event: Json, size: int) -> None:
        kind = event.get("type")
        response = event.get("response")
        if isinstance(response, dict):
            self._response, self._ended = response, kind in _TERMINAL
        elif kind == "error" and self._fits(size):
            self._error = event
        elif kind in ("response.output_item.added", "response.output_item.done"):
            self._take_item(event, size)
        elif kind in _PARTS and isinstance(event.get("part"), dict):
            name, index_name = _PARTS[str(kind)]
            self._part(event, name, index_name).update(event["part"])
        elif kind in _DELTAS and isinstance(event.get("delta"), str):
            name, index_name, text_name = _DELTAS[str(kind)]
            item = self._item(event)
            item.delta_bytes += len(event["delta"])
            target = self._part(event, name, index_name) if name else item.members
            self._add_text(target, text_name, event["delta"])

    def _take_item(self, event: Json, size: int) -> None:
        index, members = event.get("output_index"), event.get("item")
        if not isinstance(index, int) or not isinstance(members, dict):
            return
        known = self._items.get(index)
        # What its deltas had counted for, its whole takes the place of.
        if self._fits(max(0, size - (known.delta_bytes if known is not None else 0))):
            self._items[index] = _Item(members)
            self._items[index].delta_bytes = size

    def _item(self, event: Json) -> _Item:
        index = event.get("output_index")
        known = self._items.get(index) if isinstance(index, int) else None
        if known is None:
            known = _Item({})
            if isinstance(index, int) and self._fits(_NODE_BYTES):
                self._items[index] = known
        return known

    def _part(self, event: Json, name: str, index_name: str) -> Json:
        parts = self._item(event).lists.setdefault(name, {})
        index = event.get(index_name)
        known = parts.get(index) if isinstance(index, int) else None
        if known is None:
            known = {}
            if isinstance(index, int) and self._fits(_NODE_BYTES):
                parts[index] = known
        return known

    def _answer(self) -> Json:
        if self._ended:
            self.truncated = False  # whatever was left out on the way, the last event has it
            return self._response
        answer: dict[str, Any] = {**self._response}
        answer["output"] = [self._items[index].whole() for index in sorted(self._items)]
        if self._error is not None:
            answer["error"] = {name: value for name, value in self._error.items() if name not in _ENVELOPE}
        return answer


_ENVELOPE = frozenset({"type", "sequence_number"})
