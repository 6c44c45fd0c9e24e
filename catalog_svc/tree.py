"""YAML as a tree that knows its lines: text as written, bounded, without any of YAML's surprises.

Reads events rather than objects, so that `NO` stays a country, 1e-7 stays what somebody wrote, and a document can
neither nest nor multiply itself: anchors, aliases, tags and merge keys are refused, as is a key given twice.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from catalog_svc.problems import Problems

MAX_DEPTH = 12
MAX_NODES = 500_000
MAX_KEY_CHARS = 200

# libyaml's parser where the wheel has it: a document of 4 MiB takes a second instead of twenty.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Scalar:
    """A value as it was written; `quoted` tells "null" from null."""

    line: int
    text: str
    quoted: bool

    @property
    def is_null(self) -> bool:
        return not self.quoted and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(slots=True)
class Listing:
    """A list."""

    line: int
    items: "list[Node]" = field(default_factory=list)


@dataclass(slots=True)
class Mapping:
    """Keys and values, each key with its own line, in the order in which they were written."""

    line: int
    entries: "dict[str, tuple[int, Node]]" = field(default_factory=dict)


Node = Scalar | Listing | Mapping

_TAGGED = (yaml.ScalarEvent, yaml.CollectionStartEvent)
_SURROGATE = re.compile("[\ud800-\udfff]")

_WHAT = {Scalar: "a single value", Listing: "a list", Mapping: "a group of `key: value`"}


def described(node: Node) -> str:
    """What a node is, for people."""
    return "empty" if isinstance(node, Scalar) and node.is_null else _WHAT[type(node)]


def parse_tree(text: str, problems: Problems) -> Node | None:
    """The one document in `text`; None, with the problem noted, where it is not readable at all."""
    builder = _Builder(problems)
    try:
        for event in _events(text):
            if not builder.feed(event):
                return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        problems.add(line, "", f"not readable as YAML: {error.problem or error.context}; check indentation and quotes")
        return None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.add(line, "", f"a character that YAML does not allow ({error.reason}); remove it")
        return None
    if builder.root is None:
        problems.add(1, "", "the document is empty; start with `models:`")
    return builder.root


def _events(text: str) -> Iterator[yaml.Event]:
    events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
    return events


class _Builder:
    """Puts events together without recursion, so that depth costs nothing."""

    def __init__(self, problems: Problems) -> None:
        self.root: Node | None = None
        self._problems = problems
        self._open: list[Listing | Mapping] = []
        self._keys: list[tuple[int, str] | None] = []  # for each open mapping, the key that waits for its value
        self._nodes = 0

    def feed(self, event: yaml.Event) -> bool:
        """Takes one event; False when the document is refused as a whole."""
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        if isinstance(event, yaml.NodeEvent):  # an alias, a scalar, or the start of a list or mapping
            fault = _node_fault(event)
            if fault:
                return self._refuse(line, fault)
            if isinstance(event, yaml.ScalarEvent):
                return self._scalar(Scalar(line, event.value, quoted=bool(event.style)))
            return self._start(Listing(line) if isinstance(event, yaml.SequenceStartEvent) else Mapping(line))
        if isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._keys.pop()
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            return self._refuse(line, "a second document starts here; keep everything in one, without `---` between")
        return True

    def _scalar(self, scalar: Scalar) -> bool:
        if self._open and isinstance(self._open[-1], Mapping) and self._keys[-1] is None:
            return self._key(scalar)
        return self._place(scalar)

    def _key(self, scalar: Scalar) -> bool:
        if scalar.text == "<<" and not scalar.quoted:
            return self._refuse(scalar.line, "merge keys (<<) are not allowed; write the keys out")
        if len(scalar.text) > MAX_KEY_CHARS:
            return self._refuse(scalar.line, f"a key of more than {MAX_KEY_CHARS} characters; check the quotes")
        self._keys[-1] = (scalar.line, scalar.text)
        return True

    def _start(self, node: Listing | Mapping) -> bool:
        if self._open and isinstance(self._open[-1], Mapping) and self._keys[-1] is None:
            return self._refuse(node.line, "a list or group stands where a key should; check for `{{`, `? ` or `[`")
        if len(self._open) >= MAX_DEPTH:
            return self._refuse(node.line, f"nested deeper than {MAX_DEPTH} levels; no part of a catalog is that deep")
        if not self._place(node):
            return False
        self._open.append(node)
        self._keys.append(None)
        return True

    def _place(self, node: Node) -> bool:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            return self._refuse(node.line, f"more than {MAX_NODES} values; leave out what is not served")
        if not self._open:
            self.root = node
            return True
        parent = self._open[-1]
        if isinstance(parent, Listing):
            parent.items.append(node)
            return True
        waiting = self._keys[-1]
        assert waiting is not None  # _scalar and _start see to it that a mapping's value comes after its key
        key_line, key = waiting
        self._keys[-1] = None
        if key in parent.entries:
            first = parent.entries[key][0]
            self._problems.add(key_line, key, f"given twice, first on line {first}; keep one of them")
        else:
            parent.entries[key] = (key_line, node)
        return True

    def _refuse(self, line: int, message: str) -> bool:
        self._problems.add(line, "", message)
        return False


def _node_fault(event: yaml.NodeEvent) -> str:
    if event.anchor is not None:
        return "anchors (&) and aliases (*) are not allowed; write the value out"
    if isinstance(event, _TAGGED) and event.tag is not None:
        return f"tags ({str(event.tag)[:40]}) are not allowed; leave it out, or quote the value"
    if isinstance(event, yaml.ScalarEvent) and not event.value.isascii() and _SURROGATE.search(event.value):
        return "half of a character (a surrogate); write the whole character"
    return ""
