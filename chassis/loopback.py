"""Which hosts are this machine, seen from itself."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches a host. A name other than localhost is not looked up: it may change."""
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(address: str) -> str:
    """The host of a gRPC address: of `host:port`, `[::1]:port`, or of a target such as `dns:///host:port`."""
    endpoint = address.rpartition("/")[2]
    host, colon, _ = endpoint.rpartition(":")
    return (host if colon else endpoint).removeprefix("ipv4:").removeprefix("ipv6:")
