"""Names that people give, and model ids: bounded text that prints."""

from collections.abc import Sequence

from chassis.faults import InvalidArgument

NAME_CHARS_MAX = 100
ALLOWED_MODELS_MAX = 1000
MODEL_ID_CHARS_MAX = 200


def validated_name(field: str, name: str) -> str:
    """A name of an account or a key, as it was given.

    Raises:
        InvalidArgument: empty, too long, not printable, or with white space around it.
    """
    _require_text(field, name, NAME_CHARS_MAX)
    return name


def validated_allowed_models(field: str, model_ids: Sequence[str]) -> tuple[str, ...]:
    """A key's allow-list in the given order; empty means all models.

    Raises:
        InvalidArgument: too many, one twice, or one that cannot be a model id; names the item.
    """
    if len(model_ids) > ALLOWED_MODELS_MAX:
        raise InvalidArgument(
            field, f"{len(model_ids)} models: give at most {ALLOWED_MODELS_MAX}, or none to allow all"
        )
    seen: set[str] = set()
    for position, model_id in enumerate(model_ids):
        _require_text(f"{field}[{position}]", model_id, MODEL_ID_CHARS_MAX)
        if model_id in seen:
            raise InvalidArgument(f"{field}[{position}]", f"{model_id!r} is given twice: give it once")
        seen.add(model_id)
    return tuple(model_ids)


def _require_text(field: str, text: str, chars_max: int) -> None:
    if not 0 < len(text) <= chars_max:
        raise InvalidArgument(field, f"{len(text)} characters: give 1 to {chars_max}")
    if not text.isprintable():
        raise InvalidArgument(field, "contains a control character or another one that does not print")
    if text != text.strip():
        raise InvalidArgument(field, "begins or ends with white space")
