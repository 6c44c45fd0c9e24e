"""The rows of the error table that only the management API answers."""

from edge.openai.error_table import ERRORS
from edge.openai.errors import RequestError


def resource_not_found() -> RequestError:
    return RequestError("resource_not_found", ERRORS["resource_not_found"].message)


def last_management_key() -> RequestError:
    return RequestError("last_management_key", ERRORS["last_management_key"].message)


def key_not_working(detail: str) -> RequestError:
    return RequestError("key_not_working", ERRORS["key_not_working"].message.format(detail=detail))


def too_many_keys(detail: str) -> RequestError:
    return RequestError("too_many_keys", ERRORS["too_many_keys"].message.format(detail=detail))
