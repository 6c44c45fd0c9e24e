"""Messages with one thing wrong, made from good ones by the contract's descriptors; and bytes that are no message."""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1
COPIES = 1001  # one more than any list may have


class Change(NamedTuple):
    """One thing done to a message.

    wrong: no service may take it, whichever field it is in, as long as it reads the field at all. Of other changes some
    services take some: a name may be "NaN".
    """

    path: str
    value: str
    apply: Callable[[Any], object]
    wrong: bool = False

    def __str__(self) -> str:
        return f"{self.path} {self.value}"


_TEXTS_WRONG = ("\0", "a\0b", "x" * 20_000)
_STRANGE: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.TYPE_STRING: (
        "",
        "\x1b[31m",
        "é" * 101,
        " ",
        "NaN",
        "-1e400",
        "../../etc/passwd",
        "'; DROP TABLE entry; --",
        "\ufeff\u202e\U000e0001",
    ),
    FieldDescriptor.TYPE_BYTES: (b"", b"\0", b"\xff" * 33, bytes(70_000)),
    FieldDescriptor.TYPE_INT32: (-1, 0, 1001, INT32_MAX, -INT32_MAX - 1),
    FieldDescriptor.TYPE_INT64: (-1, 0, 10**13 + 1, 10**18 + 1, INT64_MAX, -INT64_MAX - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2, 2**32 - 1),
    FieldDescriptor.TYPE_BOOL: (False, True),
    FieldDescriptor.TYPE_ENUM: (0,),
}
_WRONG: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.TYPE_STRING: _TEXTS_WRONG,
    FieldDescriptor.TYPE_ENUM: (-1, 9999),
}
_WRONG_BY_NAME: dict[str, tuple[Any, ...]] = {
    "page_size": (-1, 1001, INT32_MAX, -INT32_MAX - 1),
    "page_token": ("NaN", " ", "AAAAAAAAAAAA", "é", "../../etc/passwd"),
}
_WRONG_WHOLE: dict[str, tuple[dict[str, Any], ...]] = {
    "google.protobuf.Timestamp": (
        {"seconds": 253_402_300_800},  # the year 10000
        {"seconds": INT64_MAX},
        {"seconds": -INT64_MAX - 1},
        {"seconds": -62_135_596_801},  # before the year 1
        {"seconds": 1, "nanos": -1},
        {"seconds": 1, "nanos": INT32_MAX},
    ),
    "google.protobuf.Duration": (
        {"seconds": -1},  # none of ours goes backwards
        {"seconds": INT64_MAX},
        {"seconds": -INT64_MAX - 1},
        {"seconds": 1, "nanos": -1},
        {"nanos": INT32_MAX},
    ),
    "google.protobuf.FieldMask": (
        {},
        {"paths": ["no_such_field"]},
        {"paths": [""]},
        {"paths": ["*"]},
        {"paths": ["name", "name.first"]},
        {"paths": ["x" * 20_000]},
        {"paths": ["request_id"] * 2000},
    ),
}


def changes(good: Message, prefix: str = "") -> Iterator[Change]:
    """Every change of one field, at every depth; `apply` does it to a message that has the same fields set."""
    for field in good.DESCRIPTOR.fields:
        path = prefix + field.name
        if field.is_repeated:
            yield from _of_list(good, field, path)
        elif field.message_type is not None:
            yield from _of_message(good, field, path)
        else:
            wrong = _WRONG.get(field.type, ()) + _WRONG_BY_NAME.get(field.name, ())
            for value in wrong + tuple(each for each in _STRANGE[field.type] if each not in wrong):
                yield Change(path, f"= {value!r:.30}", _setting(field.name, value), value in wrong)


def _of_message(good: Message, field: Any, path: str) -> Iterator[Change]:
    name = field.name
    yield Change(path, "absent", _clearing(name))
    for values in _WRONG_WHOLE.get(field.message_type.full_name, ()):
        yield Change(path, f"= {values!r:.60}", _replacing(name, values), wrong=True)
    if not field.message_type.full_name.startswith("google.protobuf."):
        yield Change(path, "empty", _replacing(name, {}))
        for inner in changes(getattr(good, name), f"{path}."):
            yield inner._replace(apply=_within(lambda at: getattr(at, name), inner.apply))


def _of_list(good: Message, field: Any, path: str) -> Iterator[Change]:
    name = field.name
    yield Change(path, "empty", _clearing(name))
    if field.message_type is None:
        for value in _WRONG.get(field.type, ()):
            yield Change(path, f"= [{value!r:.30}]", _appending(name, value), wrong=True)
        for value in _STRANGE[field.type]:
            yield Change(path, f"= [{value!r:.30}]", _appending(name, value))
        yield Change(path, f"* {COPIES}", _appending(name, _STRANGE[field.type][-1], COPIES), wrong=True)
        return
    yield Change(path, "and an empty one", _appending(name, GetMessageClass(field.message_type)()))
    if getattr(good, name):
        first = getattr(good, name)[0]
        yield Change(path, "with the first twice", _appending(name, first))
        yield Change(path, f"* {COPIES}", _appending(name, first, COPIES), wrong=True)
        for inner in changes(first, f"{path}[0]."):
            yield inner._replace(apply=_within(lambda at: getattr(at, name)[0], inner.apply))


def _setting(name: str, value: Any) -> Callable[[Any], object]:
    return lambda at: setattr(at, name, value)


def _clearing(name: str) -> Callable[[Any], object]:
    return lambda at: at.ClearField(name)


def _appending(name: str, value: Any, times: int = 1) -> Callable[[Any], object]:
    return lambda at: getattr(at, name).extend([value] * times)


def _within(step: Callable[[Any], Any], change: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda at: change(step(at))


def _replacing(name: str, values: dict[str, Any]) -> Callable[[Any], object]:
    def replace(at: Any) -> None:
        at.ClearField(name)
        getattr(at, name).SetInParent()
        getattr(at, name).MergeFrom(type(getattr(at, name))(**values))

    return replace


def scrambled(good: Message, seed: int, count: int) -> Iterator[bytes]:
    """Bytes that were a message: cut, flipped, doubled, filled up; and some that never were. One seed, one sequence."""
    dice, content = random.Random(seed), good.SerializeToString() or b"\x08\x01"
    yield b"\xff" * 9
    yield b"\x0a\x02\xff\xfe"  # field 1 as a text that is not UTF-8
    yield b"\x0b" * 20_000  # groups in groups
    for _ in range(count):
        changed = bytearray(content)
        position = dice.randrange(len(changed))
        match dice.randrange(4):
            case 0:
                del changed[position:]
            case 1:
                changed[position] ^= 1 << dice.randrange(8)
            case 2:
                changed += changed[position:]
            case _:
                changed[position:position] = dice.randbytes(dice.randint(1, 8))
        yield bytes(changed)
