"""The bearer key in a request's headers."""

from multidict import CIMultiDictProxy

from chassis.secret_token import digest, well_formed
from edge import metrics
from edge.access.key_cache import Grant, KeyCache
from edge.http.protocol import Request
from edge.limits.addresses import Addresses
from edge.openai import errors
from edge.openai.errors import RequestError

_SCHEME = "bearer "
# As auth_svc makes them (docs/architecture.md, "Keys"); tests/stack holds the two together.
KEY_PREFIX = "tg_"


def secret_from(headers: CIMultiDictProxy[str]) -> str:
    """The secret that a request presents.

    Raises:
        RequestError: 401: no Authorization header, more than one, or not of the form `Bearer <key>`.
    """
    values = headers.getall("Authorization", ())
    if len(values) != 1:
        raise errors.invalid_api_key()
    value: str = values[0]
    if value[:7].lower() != _SCHEME or not value.isascii():  # headers may hold bytes of any kind, keys do not
        raise errors.invalid_api_key()
    return value[7:].strip()


def held_grant(request: Request, keys: KeyCache) -> Grant | None:
    """What the request's key allows, if that is known here.

    A connection is nearly always one client's with one key: its digest is computed once, and looked up each time.

    Raises:
        RequestError: 401, as `secret_from`.
    """
    connection, values = request.connection, request.headers.getall("Authorization", ())
    if connection.authorization != values:
        connection.key_digest = digest(secret_from(request.headers))
        connection.authorization = values
    return keys.held_by(connection.key_digest)


async def grant_of(request: Request, keys: KeyCache, addresses: Addresses, request_id: str) -> Grant:
    """What the request's key allows.

    Raises:
        RequestError: 401 for whatever is not a working key, one and the same; 429 where its address has tried too many
            of them; 503 when that cannot be found out.
    """
    secret = secret_from(request.headers)
    grant = keys.held(secret)
    if grant is not None:
        return grant
    if not well_formed(secret, KEY_PREFIX):  # garbage is refused without a look-up
        raise errors.invalid_api_key()
    try:
        return await keys.fetch(secret, addresses.key_trials.trial(addresses.client_of(request)), request_id)
    except RequestError as error:
        if error.reason == "invalid_api_key":
            metrics.FAILED_KEYS.inc()
        raise
