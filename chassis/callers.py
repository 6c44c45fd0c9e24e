"""Who may call which gRPC service, by the names in the callers' certificates."""

from collections.abc import Iterable, Mapping

import grpc

from chassis.faults import PermissionDenied

# "Service" or "Service/Method" -> names. The short name of a service: without its package.
Callers = Mapping[str, frozenset[str]]

ANYBODY = "*"
# What says how a process is, and says no more, to whoever has a certificate.
OPEN_TO_ALL = frozenset({"Health", "ServerReflection"})


def callers_from_text(text: str, known: Callers | None = None) -> Callers:
    """`Service=name,name Other/Method=name` as a mapping.

    known: the services that there are; None where any will do.

    Raises:
        ValueError: says what is wrong.
    """
    callers: dict[str, frozenset[str]] = {}
    services = {entry.partition("/")[0] for entry in known} if known is not None else None
    for entry in text.split():
        what, equals, names = entry.partition("=")
        if not equals or not what:
            raise ValueError(f"{entry!r} is not of the form Service=name,name")
        if services is not None and what.partition("/")[0] not in services:
            raise ValueError(f"{what!r} is no service of this process: it has {', '.join(sorted(services))}")
        callers[what] = frozenset(filter(None, names.split(",")))
    return callers


def with_defaults(text: str, default: str) -> Callers:
    """What was set, over the defaults."""
    defaults = callers_from_text(default)
    return {**defaults, **callers_from_text(text, known=defaults)}


def identities(auth_context: Mapping[str, Iterable[bytes]]) -> frozenset[str]:
    """The names in a caller's certificate: its common name, its DNS names and its URIs."""
    names = (
        *auth_context.get("x509_common_name", ()),
        *auth_context.get("x509_subject_alternative_name", ()),
    )
    return frozenset(name.decode(errors="replace") for name in names)


class Gate:
    """Lets callers in by their names. For a server over TLS: without it nobody has any, and everybody is let in."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    def check(self, method: str, context: "grpc.aio.ServicerContext[object, object]") -> None:
        """Refuses a caller that may not call `/package.Service/Method`.

        Raises:
            PermissionDenied: CALLER_NOT_ALLOWED; says who may.
        """
        _, service, name = method.split("/")
        short = service.rpartition(".")[2]
        if short in OPEN_TO_ALL:
            return
        allowed = self._callers.get(f"{short}/{name}")
        if allowed is None:
            allowed = self._callers.get(short, frozenset())
        names = identities(context.auth_context())
        if ANYBODY in allowed or allowed & names:
            return
        raise PermissionDenied(
            "CALLER_NOT_ALLOWED",
            f"the certificate shown is for {', '.join(sorted(names)) or 'nobody'}, and {short}/{name} is for "
            f"{', '.join(sorted(allowed)) or 'nobody'}: call with another certificate, or have the service's setting "
            "..._CALLERS changed",
        )
