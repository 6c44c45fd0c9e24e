"""Update masks: which fields of a message a write means (https://google.aip.dev/134)."""

from collections.abc import Sequence

from chassis.faults import InvalidArgument


def validated_paths(paths: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The fields to change, each once.

    Raises:
        InvalidArgument: none, or one that cannot be changed; the message lists those that can.
    """
    if not paths:
        raise InvalidArgument("update_mask", f"names no field: give one or more of {', '.join(known)}")
    for path in paths:
        if path not in known:
            raise InvalidArgument("update_mask", f"{path[:100]!r} cannot be changed; what can: {', '.join(known)}")
    return tuple(dict.fromkeys(paths))
