"""Which options of `stream_options` deployments refuse: learnt from their refusals, forgotten after a while.

Servers differ, and are upgraded under the same name. So an option that a catalog allows is sent; a server that
refuses it by name is asked again without it, and not sent it for `MEMORY_S`.
"""

import time

from edge import metrics
from edge.openai.ask import CONTINUOUS_USAGE, INCLUDE_USAGE

MEMORY_S = 3600.0
# Servers that do not know a field refuse it by name with one of these.
REFUSING_STATUSES = frozenset({400, 422})
_REMEMBERED_MAX = 10_000


class StreamOptions:
    """What one edge has learnt."""

    def __init__(self) -> None:
        self._refused_until_s: dict[tuple[str, str], float] = {}  # by deployment and option

    def refuses(self, deployment_id: str, option: str) -> bool:
        """Whether a deployment has refused an option lately."""
        if not self._refused_until_s:  # nearly always
            return False
        until_s = self._refused_until_s.get((deployment_id, option))
        if until_s is None:
            return False
        if time.monotonic() < until_s:
            return True
        self._forget((deployment_id, option))
        return False

    def learn(self, deployment_id: str, option: str) -> None:
        """A deployment answered as soon as an option was left out."""
        if len(self._refused_until_s) >= _REMEMBERED_MAX:
            self._forget(next(iter(self._refused_until_s)))
        self._refused_until_s[deployment_id, option] = time.monotonic() + MEMORY_S
        metrics.STREAM_OPTIONS_REFUSED.labels(deployment_id, option).set(time.time() + MEMORY_S)

    def _forget(self, refused: tuple[str, str]) -> None:
        del self._refused_until_s[refused]
        metrics.STREAM_OPTIONS_REFUSED.remove(*refused)


def refused_option(answer: bytes, *, include_usage: bool, continuous_usage: bool) -> str | None:
    """Which of the options that we added a refusal is about; None if about neither.

    include_usage: all of `stream_options` is ours. continuous_usage: that option is.
    """
    if continuous_usage and answer.find(CONTINUOUS_USAGE.encode()) >= 0:
        return CONTINUOUS_USAGE
    if include_usage and answer.find(b"stream_options") >= 0:
        return INCLUDE_USAGE
    return None
