"""What one client address may do without a key: open connections, and try keys that do not exist.

An IPv6 client has a whole network to itself, so its first 64 bits count as one address. Behind proxies the address is
the one that the outermost trusted proxy saw (`trusted_proxy_hops`); connections are then the proxy's, and not counted.
"""

import re
from collections import Counter
from ipaddress import IPv6Address, ip_address

from chassis.clock import Clock
from edge import metrics
from edge.http.protocol import Request
from edge.limits.key_trials import KeyTrials

# An address as some proxies write it, with the port: a new one with each connection.
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]+|\[(.*)\](?::[0-9]+)?")


class Addresses:
    """Counts of one edge process. A limit of 0 means none."""

    def __init__(
        self, clock: Clock, *, trusted_proxy_hops: int, connections_max: int, failed_keys_per_minute: int
    ) -> None:
        self.key_trials = KeyTrials(clock.monotonic, failed_per_minute=failed_keys_per_minute)
        self._hops = trusted_proxy_hops
        self._connections_max = 0 if trusted_proxy_hops else connections_max
        self._connections: Counter[str] = Counter()

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


def network_of(address: str) -> str:
    """An IPv4 address as it is, the network of an IPv6 one; what is neither, in a bounded length."""
    if with_port := _WITH_PORT.fullmatch(address):
        address = with_port[1] or with_port[2]
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)
