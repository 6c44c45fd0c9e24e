"""In which order deployments are tried. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge.routing.snapshot import Deployment

# After a failure a deployment is tried last for this long, doubling with every further failure.
COOLDOWN_FIRST_S = 1.0
COOLDOWN_MAX_S = 30.0


@dataclass(slots=True)
class Health:
    """What recent calls taught about each deployment."""

    _failures: dict[str, int] = field(default_factory=dict)
    _cool_until_s: dict[str, float] = field(default_factory=dict)

    def failed(self, deployment_id: str, now_s: float) -> None:
        """It could not be reached, or answered that it cannot serve."""
        count = self._failures.get(deployment_id, 0)
        self._failures[deployment_id] = count + 1
        self._cool_until_s[deployment_id] = now_s + min(COOLDOWN_FIRST_S * 2.0 ** min(count, 10), COOLDOWN_MAX_S)

    def worked(self, deployment_id: str) -> None:
        """It answered."""
        if deployment_id in self._failures:
            del self._failures[deployment_id]
            self._cool_until_s.pop(deployment_id, None)

    def cooling(self, deployment_id: str, now_s: float) -> bool:
        """Whether others should be tried first."""
        return now_s < self._cool_until_s.get(deployment_id, 0.0)


def order(
    deployments: Sequence[Deployment], health: Health, now_s: float, randomness: random.Random
) -> Sequence[Deployment]:
    """Healthy ones before cooling ones; lower priority first; among equals at random, in proportion to weight."""
    if len(deployments) == 1:
        return deployments
    # Efraimidis and Spirakis (2006): keys u^(1/w) sort into a weighted random order without replacement.
    return sorted(
        deployments,
        key=lambda d: (
            health.cooling(d.deployment_id, now_s),
            d.priority,
            -(randomness.random() ** (1.0 / d.weight)),
        ),
    )
