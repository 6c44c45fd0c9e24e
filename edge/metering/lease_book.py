"""All leases of one session: one per account, bounded in number, unused ones first to go."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice

from edge.metering.lease import Lease

_EVICTION_LOOKS_MAX = 64  # leases with open holds cannot go; how many of them to pass on the way to one that can


class LeaseBook:
    """Finds, makes and forgets leases. `give_back` spools the return of a lease's free funds; False where it cannot."""

    def __init__(
        self,
        leases_max: int,
        window_s: float,
        new_lease_id: Callable[[], str],
        give_back: Callable[[Lease, int], bool],
        spend_factor: float = 1,
    ) -> None:
        self._leases: OrderedDict[str, Lease] = OrderedDict()
        self._leases_max, self._window_s, self._spend_factor = leases_max, window_s, spend_factor
        self._new_lease_id, self._give_back = new_lease_id, give_back
        self.get = self._leases.get
        self.touch = self._leases.move_to_end

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    def ensure(self, account_id: str, now: float) -> Lease:
        """The account's lease, made if there is none: it is worth nothing until funds are granted."""
        lease = self._leases.get(account_id)
        if lease is None:
            if len(self._leases) >= self._leases_max:
                self._evict()
            lease = self._leases[account_id] = Lease(
                self._new_lease_id(), account_id, now, self._window_s, spend_factor=self._spend_factor
            )
        return lease

    def return_surplus(self, now: float, looks_max: int) -> None:
        """Looks at the next `looks_max` leases, in turn, and returns what they need no more."""
        for lease in list(islice(self._leases.values(), looks_max)):
            surplus = lease.surplus_nanousd(now)
            if surplus and not self._give_back(lease, surplus):
                return
            if surplus and lease.is_idle and lease.free_nanousd == 0:
                del self._leases[lease.account_id]
            else:
                self._leases.move_to_end(lease.account_id)

    def return_all(self) -> None:
        """At the end of a session: all that is free goes back."""
        for lease in self._leases.values():
            if lease.free_nanousd > 0 and not self._give_back(lease, lease.free_nanousd):
                return

    def _evict(self) -> None:
        idle = [lease for lease in islice(self._leases.values(), _EVICTION_LOOKS_MAX) if lease.is_idle]
        if not idle:
            return  # the bound then gives way: it is open requests that hold these leases, and those are bounded
        lease = min(idle, key=lambda each: each.use_time)
        if lease.free_nanousd <= 0 or self._give_back(lease, lease.free_nanousd):
            del self._leases[lease.account_id]
