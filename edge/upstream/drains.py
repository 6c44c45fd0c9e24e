"""How many streams are read on without a client, at most: each of them keeps its upstream at work for nobody."""

from edge import metrics


class Drains:
    """The places of one edge. Whoever gets one gives it back with `end`."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._count = 0

    def begin(self) -> bool:
        """Takes a place. False if all are taken: then the upstream must be closed."""
        if self._count >= self._count_max:
            return False
        self._count += 1
        metrics.ABANDONED_DRAINS.set(self._count)
        return True

    def end(self) -> None:
        """Gives a place back."""
        self._count -= 1
        metrics.ABANDONED_DRAINS.set(self._count)
