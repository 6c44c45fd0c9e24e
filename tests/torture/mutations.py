"""Ways to break each invariant on purpose, to check that the proof can fail.

Each replaces functions of the product while it runs, by a test's monkeypatch or in the launcher of the torture's own
processes (`--mutation NAME`); the product itself has no hooks. test_mutations.py has a directed scenario for each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

Patch = Callable[[Any, str, Any], None]  # setattr, or a test's monkeypatch


@dataclass(frozen=True, slots=True)
class Mutation:
    """`apply` replaces functions, by `patch(owner, name, value)`. Modules are imported by it, not before."""

    breaks: str
    apply: Callable[[Patch], None]

    @property
    def what(self) -> str:
        """What is different, in a sentence or two."""
        return " ".join((self.apply.__doc__ or "").split())


def _no_deduplication(patch: Patch) -> None:
    """A batch that comes again is posted again: neither the cursor nor the key on request ids is looked at."""
    recording = import_module("usage_svc.recording")
    driver = import_module("usage_svc.driver")
    on_sqlite, on_postgres = driver._sqlite_insert, driver._postgres_insert
    patch(recording, "records_to_skip", lambda _next_seq, _first_seq, _count: 0)
    patch(recording.event_store, "seen_outcomes", lambda _ids: [])
    patch(driver, "_sqlite_insert", lambda *told: on_sqlite(*told).replace("INSERT INTO", "INSERT OR IGNORE INTO"))
    patch(driver, "_postgres_insert", lambda *told: f"{on_postgres(*told)} ON CONFLICT DO NOTHING")


def _ship_before_write(patch: Patch) -> None:
    """Events are shipped, and answers end, while their records are in this process's memory only."""
    group_commit = import_module("edge.metering.group_commit")

    def settle(self: Any, log: Any) -> Any:
        log.safe_seq = log.next_seq
        self._on_safe()
        return self.done

    patch(group_commit.GroupCommit, "settle", settle)


def _no_fsync(patch: Patch) -> None:
    """What is written counts as synced."""
    spool_log = import_module("edge.metering.spool_log")

    def take_unsynced(self: Any) -> tuple[list[int], int]:
        self._unsynced.clear()
        self._is_folder_unsynced = False
        return [], self.next_seq

    patch(spool_log.SpoolLog, "take_unsynced", take_unsynced)


def _forward_before_admitted(patch: Patch) -> None:
    """Requests are forwarded without a trace on disk that they were."""
    spool_log = import_module("edge.metering.spool_log")

    def reserve_only(self: Any, _request_id: str, _body: bytes) -> None:
        while self._room < spool_log.FRAME_BYTES_MAX:
            self._extend()

    patch(spool_log.SpoolLog, "append_admitted", reserve_only)


def _segment_deleted_once_acknowledged(patch: Patch) -> None:
    """A segment goes when its records are in usage_svc, though a request that was admitted in it is still open."""
    spool_log = import_module("edge.metering.spool_log")
    acknowledge = spool_log.SpoolLog.acknowledge

    def forgetful(self: Any, next_seq: int) -> None:
        for segment in self._segments:
            segment.needed_seq = 0
            if not isinstance(segment.open, _Overlooked):
                segment.open = _Overlooked(segment.open)
        acknowledge(self, next_seq)

    patch(spool_log.SpoolLog, "acknowledge", forgetful)


class _Overlooked(dict[str, bytes]):
    def __bool__(self) -> bool:
        return False


def _partial_adoption(patch: Patch) -> None:
    """What a dead process had recorded is shipped; the requests that it left open get no outcome."""
    spool_log = import_module("edge.metering.spool_log")
    close_with_edge_lost = spool_log.SpoolLog.close_with_edge_lost

    def partial(self: Any, *told: Any) -> int:
        self._home.clear()
        for segment in self._segments:
            segment.open.clear()
        lost: int = close_with_edge_lost(self, *told)
        return lost

    patch(spool_log.SpoolLog, "close_with_edge_lost", partial)


def _adoption_without_lock(patch: Patch) -> None:
    """A spool folder is taken over while its edge lives."""
    spool = import_module("edge.metering.spool")
    patch(spool, "fcntl", SimpleNamespace(flock=lambda *_: None, LOCK_EX=0, LOCK_NB=0))


def _seal_before_ingest(patch: Patch) -> None:
    """A spool is sealed with what was shipped of it so far."""
    shipper = import_module("edge.metering.shipper")
    usage_pb2 = import_module("protos.usage.v1.usage_pb2")

    async def hasty(self: Any, log: Any) -> bool:
        request = usage_pb2.SealRequest(session=self._session_of(log), end_seq=log.ship_seq)
        await shipper.call(self._stub.Seal, request, timeout_s=self._settings.rpc_timeout_s)
        await self._drop(log, is_sealed=True)
        return True

    patch(shipper.Shipper, "_work_off", hasty)


def _release_twice(patch: Patch) -> None:
    """A repeated Seal releases again what the first one had released."""
    leases = import_module("usage_svc.leases")
    session_store = import_module("usage_svc.session_store")
    driver = import_module("usage_svc.driver")
    patch(leases.Lease, "release", lambda self: self.reserved_nanousd)
    patch(session_store, "end", lambda *_: driver.Command("SELECT 1", []))


def _sweep_frees(patch: Patch) -> None:
    """A session that has gone silent loses its leases, though its edge may still be spending from them."""
    session_store = import_module("usage_svc.session_store")
    driver = import_module("usage_svc.driver")
    sweep = session_store.sweep
    silent = (
        "EXISTS (SELECT 1 FROM session s "
        "WHERE s.spool_uuid = l.spool_uuid AND s.incarnation = l.incarnation AND s.state = 2)"
    )

    async def freeing(transaction: Any, ttl_us: int) -> int:
        swept: int = await sweep(transaction, ttl_us)
        attached = await driver.attach(transaction)
        await attached.execute_each(
            driver.Command(
                "UPDATE account SET available_nanousd = available_nanousd + (SELECT CAST(COALESCE(SUM("
                "l.granted_nanousd - l.settled_nanousd - l.returned_nanousd), 0) AS bigint) FROM lease l "
                f"WHERE l.account_id = account.account_id AND NOT l.closed AND {silent}) WHERE $1 = $1",
                [(1,)],
            ),
            driver.Command(
                "UPDATE lease AS l SET returned_nanousd = granted_nanousd - settled_nanousd, closed = true "
                f"WHERE NOT closed AND $1 = $1 AND {silent}",
                [(1,)],
            ),
        )
        return swept

    patch(session_store, "sweep", freeing)


def _returns_not_cumulative(patch: Patch) -> None:
    """A return is taken for what goes back now, not for all that went back so far."""
    leases = import_module("usage_svc.leases")

    def give_back(self: Any, returned_nanousd: int) -> int:
        delta: int = min(returned_nanousd, self.reserved_nanousd)
        self.returned_nanousd += delta
        return delta

    patch(leases.Lease, "give_back", give_back)


def _last_freed_early(patch: Patch) -> None:
    """The slot for an account's last request is free again while that request runs."""
    meter = import_module("edge.metering.meter")
    write_admitted = meter.Meter._write_admitted

    def early(self: Any, *told: Any) -> Any:
        admission = write_admitted(self, *told)
        if admission.lease.is_last:
            self._acquirer.end_last(admission.lease, admission.log)
        return admission

    patch(meter.Meter, "_write_admitted", early)


def _counts_altered(patch: Patch) -> None:
    """The edge bills one completion token more than its upstream reported."""
    bill = import_module("edge.bill")
    set_tokens = bill.set_tokens

    def generous(event: Any, usage: Any) -> None:
        set_tokens(event, usage)
        event.completion_tokens += 1

    patch(bill, "set_tokens", generous)


MUTATIONS: Mapping[str, Mutation] = {
    apply.__name__.removeprefix("_"): Mutation(breaks, apply)
    for breaks, apply in (
        ("I2", _no_deduplication),
        ("I2", _ship_before_write),
        ("I2", _no_fsync),
        ("I2, I6", _forward_before_admitted),
        ("I2", _segment_deleted_once_acknowledged),
        ("I2", _partial_adoption),
        ("I2", _adoption_without_lock),
        ("I2", _seal_before_ingest),
        ("I4", _release_twice),
        ("I1", _sweep_frees),
        ("I1", _returns_not_cumulative),
        ("I1", _last_freed_early),
        ("I3", _counts_altered),
    )
}
