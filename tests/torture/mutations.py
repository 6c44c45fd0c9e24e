"""Ways to break each invariant on purpose."""

from collections.abc import Callable
from dataclasses import dataclass

Patch = Callable[[object, str, object], None]  # setattr, or a test's monkeypatch


@dataclass(frozen=True, slots=True)
class Mutation:
    """`apply` replaces functions of the product, by `patch(owner, name, value)`."""

    breaks: str
    apply: Callable[[Patch], None]


MUTATIONS: dict[str, Mutation] = {}
