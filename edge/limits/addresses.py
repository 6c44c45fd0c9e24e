"""What one client address may do without a key: open connections, and try keys that do not exist.

An IPv6 client has a whole network to itself, so its first 64 bits count as one address. Behind proxies the address is
the one that the outermost trusted proxy saw (`trusted_proxy_hops`); connections are then the proxy's, and not counted.
"""

import math
from collections import Counter, OrderedDict
from ipaddress import IPv6Address, ip_address

from chassis.clock import Clock
from chassis.gcra import Gcra
from edge import metrics
from edge.http.protocol import Request
from edge.openai import errors

PERIOD_S = 60.0
# Addresses with failures that are remembered; beyond, the one that failed longest ago is forgotten.
FAILED_ADDRESSES_MAX = 50_000


class Addresses:
    """Counts of one edge process. A limit of 0 means none."""

    def __init__(
        self, clock: Clock, *, trusted_proxy_hops: int, connections_max: int, failed_keys_per_minute: int
    ) -> None:
        self._monotonic = clock.monotonic
        self._hops, self._failed_keys_per_minute = trusted_proxy_hops, failed_keys_per_minute
        self._connections_max = 0 if trusted_proxy_hops else connections_max
        self._connections: Counter[str] = Counter()
        self._failures: OrderedDict[str, Gcra] = OrderedDict()

    def opened(self, peer: str) -> bool:
        """Whether one more connection of a peer may stay; if so, tell of its end with `closed`."""
        if not self._connections_max:
            return True
        if self._connections[peer] >= self._connections_max:
            metrics.CONNECTIONS_REFUSED.inc()
            return False
        self._connections[peer] += 1
        return True

    def closed(self, peer: str) -> None:
        """A connection that could stay has ended."""
        if self._connections_max:
            self._connections[peer] -= 1
            if self._connections[peer] <= 0:
                del self._connections[peer]

    def client_of(self, request: Request) -> str:
        """Where a request came from, as one address or one network."""
        address = request.connection.peer
        if self._hops:
            # Each trusted proxy appends the address that it sees; what stands further left is anybody's claim.
            seen = [
                part.strip() for value in request.headers.getall("X-Forwarded-For", ()) for part in value.split(",")
            ]
            if len(seen) >= self._hops:
                address = seen[-self._hops]
        return network_of(address)

    def may_try_a_key(self, client: str) -> None:
        """Before a key is looked up that is not known here.

        Raises:
            RequestError: 429: too many keys from there did not exist.
        """
        failures = self._failures.get(client)
        if failures is None:
            return
        wait_s = failures.wait_s(1, self._monotonic())
        if wait_s > 0:
            raise errors.too_many_failed_keys(math.ceil(wait_s))

    def key_failed(self, client: str) -> None:
        """A key from there does not exist, or works no more."""
        metrics.FAILED_KEYS.inc()
        if not self._failed_keys_per_minute:
            return
        failures = self._failures.pop(client, None) or Gcra(self._failed_keys_per_minute, PERIOD_S)
        failures.take(1, self._monotonic())
        self._failures[client] = failures
        if len(self._failures) > FAILED_ADDRESSES_MAX:
            self._failures.popitem(last=False)


def network_of(address: str) -> str:
    """An IPv4 address as it is, the network of an IPv6 one; what is neither, in a bounded length."""
    try:
        parsed = ip_address(address.partition("%")[0].strip("[]"))
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)
