"""Posting a batch of spooled records: one transaction under the session's lock, all of it or nothing."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from chassis.database import Database
from chassis.faults import FailedPrecondition, NotFound
from pricing import Price
from usage_svc import bulk, event_store, funds_store, key_spend_store, metrics, prices, session_store
from usage_svc.driver import Query, Script, write_by_script
from usage_svc.events import Batch, Outcome, PriceTerms, Record, Source, is_newer
from usage_svc.intake import Exceptional, Intake, Lookups, RecordOutcome, Sifted, sift, take_in
from usage_svc.key_spend import charges_by_key, spent_in
from usage_svc.prices import PriceBook
from usage_svc.rating import MICROSECONDS_PER_DAY
from usage_svc.sessions import Session, SessionId, SessionState, records_to_skip

_TOKEN_KINDS = ("prompt", "completion", "cached", "cache_write", "reasoning")


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where the session's cursor stands after a batch, and what of it was not simply posted."""

    next_seq: int
    exceptions: Sequence[Exceptional] = ()
    intake: Intake | None = None
    prices: Mapping[PriceTerms, Price] = field(default_factory=dict)


class Recorder:
    """Posts batches. One for a process: it remembers the prices that it has compared."""

    def __init__(self, database: Database, horizon_days: int) -> None:
        self._database = database
        self._horizon_days = horizon_days
        self._price_book = PriceBook()

    async def record(
        self, session_id: SessionId, first_seq: int, batch: Batch, bytes_at: Callable[[int], bytes]
    ) -> Recorded:
        """Posts what of a batch is not posted yet and moves the cursor, durably, before it returns.

        `bytes_at` gives the record at a position as it came, for the quarantine.

        Raises:
            NotFound: no such session (SESSION_UNKNOWN).
            FailedPrecondition: it was sealed (SESSION_DRAINED), or its next record needs newer code (SCHEMA_TOO_NEW).
        """
        start = time.perf_counter()
        tries = itertools.count()
        recorded = await write_by_script(
            self._database,
            # Requests that were posted before are rare: first it is taken that there are none, and the key on their ids
            # ends that try if there is one.
            lambda: self._post(session_id, first_seq, batch, bytes_at, look_for_repeats=next(tries) > 0),
        )
        self._price_book.add(recorded.prices)
        _count(recorded, batch.size, time.perf_counter() - start)
        return recorded

    def _post(
        self,
        session_id: SessionId,
        first_seq: int,
        batch: Batch,
        bytes_at: Callable[[int], bytes],
        *,
        look_for_repeats: bool,
    ) -> Script[Recorded]:
        session, now_us = yield from session_store.lock_session(session_id)
        if session is None:
            raise NotFound(
                "SESSION_UNKNOWN",
                "this database never opened that session: if it was restored from a copy, the spool must be kept, and "
                "the operator asked",
            )
        skip = records_to_skip(session.next_seq, first_seq, batch.size)
        if skip == batch.size:
            return Recorded(session.next_seq)
        if session.state is SessionState.DRAINED:
            raise FailedPrecondition("SESSION_DRAINED", "the session was sealed: it takes no further records")
        if skip is None:
            return Recorded(session.next_seq)
        fresh, intake, verdicts = yield from self._decide(session, batch, skip, now_us, look_for_repeats)
        next_seq = session.next_seq + fresh
        quarantined = [
            (seq, reason, bytes_at(seq - first_seq))
            for seq, outcome, reason in intake.exceptions
            if outcome is RecordOutcome.QUARANTINED
        ]
        opening = [event_store.open_batch(session_id, session.next_seq, now_us)]
        if key_ids := set(intake.posted.field("key_id")) - {""}:
            opening.append(key_spend_store.limited(key_ids))
        ((batch_id,),), *limited = yield opening
        limits = [(row[0], row[1]) for rows in limited for row in rows]
        spent = spent_in(charges_by_key(intake.posted), limits) if limits else {}
        yield (
            event_store.insert_price_versions(verdicts.first_seen),
            event_store.delete_events(intake.superseded),
            event_store.insert_events(batch_id, session.next_seq, intake.posted),
            event_store.insert_quarantined(session_id, quarantined, now_us),
            funds_store.update_spent(intake.leases.values()),
            funds_store.apply_changes(intake.accounts),
            *key_spend_store.post(session_id, spent),
            session_store.advance(session_id, next_seq),
        )
        return Recorded(next_seq, intake.exceptions, intake, verdicts.prices)

    def _decide(
        self, session: Session, batch: Batch, skip: int, now_us: int, look_for_repeats: bool
    ) -> Script[tuple[int, Intake, prices.Verdicts]]:
        """How many records are new and understood, what they do to the books, and what of prices was learnt.

        Raises:
            FailedPrecondition: the first of them needs newer code (SCHEMA_TOO_NEW).
        """
        session_id, first_seq, today = session.session_id, session.next_seq, now_us // MICROSECONDS_PER_DAY
        if batch.columns is not None and not skip:
            sifted = bulk.sift(batch.columns, today, self._horizon_days)
            if sifted is not None:
                known, verdicts = yield from self._look_up(sifted, look_for_repeats=look_for_repeats)
                intake = bulk.take_in(session_id, first_seq, batch.columns, sifted, known)
                if intake is not None:
                    return batch.size, intake, verdicts
        records = _until_newer(batch.records[skip:])
        if not records:
            raise FailedPrecondition(
                "SCHEMA_TOO_NEW",
                f"record {first_seq} was written by a newer edge: keep it, and upgrade usage_svc",
            )
        sifted = sift(records, today, self._horizon_days)
        known, verdicts = yield from self._look_up(sifted, look_for_repeats=look_for_repeats)
        return len(records), take_in(session_id, first_seq, records, sifted, known), verdicts

    def _look_up(self, sifted: Sifted, *, look_for_repeats: bool) -> Script[tuple[Lookups, prices.Verdicts]]:
        known_prices = self._price_book.known(sifted.terms)
        unknown_terms = [terms for terms in sifted.terms if terms not in known_prices]
        queries: list[Query] = [funds_store.leases_by_id(sifted.lease_ids)] if sifted.lease_ids else []
        lease_queries = len(queries)
        if look_for_repeats:
            queries += event_store.seen_outcomes(sifted.request_ids_by_day)
        if unknown_terms:
            queries.append(event_store.price_versions({terms.price_version for terms in unknown_terms}))
        answers = (yield queries) if queries else []
        stored = [PriceTerms(*row) for row in answers.pop()] if unknown_terms else []
        verdicts = prices.judge(unknown_terms, {terms.price_version: terms for terms in stored})
        leases = [funds_store.lease_from_row(row) for rows in answers[:lease_queries] for row in rows]
        lookups = Lookups(
            leases={lease.lease_id: lease for lease in leases},
            seen_outcomes={row[0]: row[1] for rows in answers[lease_queries:] for row in rows},
            prices={**known_prices, **verdicts.prices},
            price_reasons=verdicts.reasons,
        )
        return lookups, verdicts


def _until_newer(records: Sequence[Record]) -> Sequence[Record]:
    """The records before the first that this code does not know: earlier good ones need not wait for an upgrade."""
    for index, record in enumerate(records):
        if is_newer(record):
            return records[:index]
    return records


def _count(recorded: Recorded, records: int, duration_s: float) -> None:
    metrics.BATCH_RECORDS.observe(records)
    metrics.BATCH_DURATION.observe(duration_s)
    intake = recorded.intake
    if intake is None:
        return
    posted = intake.posted
    kinds = list(zip(posted.field("outcome"), posted.field("source"), strict=True))
    for outcome, source in set(kinds):
        count = kinds.count((outcome, source))
        metrics.EVENTS.labels(Outcome(outcome).name.lower(), Source(source).name.lower()).inc(count)
    for kind in _TOKEN_KINDS:
        metrics.TOKENS.labels(kind).inc(sum(posted.field(f"{kind}_tokens")))
    metrics.CHARGED.inc(sum(posted.charges_nanousd))
    for why, overflow in intake.overflows.items():
        metrics.OVERFLOW.labels(why).inc(overflow)
    for exceptional in intake.exceptions:
        if exceptional.outcome is RecordOutcome.DUPLICATE:
            metrics.DUPLICATES.inc()
        else:
            metrics.QUARANTINED.labels(exceptional.reason).inc()
