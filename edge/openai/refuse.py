"""What one deployment refuses: by its kind, less what the operator allows."""

from __future__ import annotations

from edge.openai.ask import Ask
from edge.openai.errors import unsupported_parameter
from edge.openai.fields import KINDS, REFUSED


class Refusals:
    """The policy of one deployment. Refuses, never drops: what passes reaches the upstream byte for byte."""

    def __init__(self, kind: str, allow: frozenset[str] = frozenset(), n_max: int = 1) -> None:
        """
        kind: one of fields.KINDS. allow: names of fields.REFUSED. n_max: answers per request that are metered right.

        Raises:
            ValueError: an unknown kind or name; it is the operator's, so it says which.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown deployment kind {kind!r}; one of {', '.join(sorted(KINDS))}")
        if unknown := allow - REFUSED.keys():
            raise ValueError(f"cannot allow {', '.join(sorted(unknown))}; one of {', '.join(sorted(REFUSED))}")
        if n_max < 1:
            raise ValueError(f"n_max is {n_max}; it must be at least 1")
        self.refused = frozenset(name for name, row in REFUSED.items() if kind in row.kinds) - allow
        self.n_max = n_max

    def refuse(self, ask: Ask) -> None:
        """Pass, or say what this deployment does not take.

        Raises:
            RequestError: 400 unsupported_parameter, naming the first such field and why.
        """
        for finding in ask.findings:
            if finding.name in self.refused:
                raise unsupported_parameter(finding.param, REFUSED[finding.name].why)
        if ask.n > self.n_max:
            raise unsupported_parameter("n", f"at most {self.n_max} per request")
