"""SQL about usage events, price versions and the quarantine."""

from collections.abc import Iterable, Mapping, Sequence

from usage_svc.driver import Command, Insert, Query, insert_of_rows
from usage_svc.events import PriceTerms, UsageEvent
from usage_svc.intake import Posted
from usage_svc.ledger import ENTRIES_PER_BATCH
from usage_svc.sessions import SessionId
from usage_svc.tables import PriceVersionRow, QuarantineRow, UsageEventRow

_EVENT_COLUMNS = ("day", *UsageEvent._fields, "charged_nanousd", "overflow_nanousd", "entry_id")
_QUARANTINE_COLUMNS = ("spool_uuid", "incarnation", "seq", "reason", "record", "create_time_us")


def seen_outcomes(request_ids_by_day: Mapping[int, Sequence[str]]) -> list[Query]:
    """One query a day: which of these requests are posted, and how they ended."""
    return [
        Query("SELECT request_id, outcome FROM usage_event WHERE day = $1 AND request_id IN_LIST($2)", (day, list(ids)))
        for day, ids in request_ids_by_day.items()
    ]


def price_versions(versions: Iterable[str]) -> Query:
    """The vectors that were first seen of these versions, for PriceTerms."""
    return Query(
        "SELECT price_version, prompt, completion, input_cache_read, input_cache_write, image, request "
        "FROM price_version WHERE price_version IN_LIST($1)",
        (sorted(versions),),
    )


def insert_price_versions(terms: Sequence[PriceTerms]) -> Insert:
    """Remembers vectors. Two sessions may see a version first at once: the second one's transaction runs again."""
    return insert_of_rows(PriceVersionRow.__table__, PriceTerms._fields, sorted(terms))  # type: ignore[attr-defined]  # SQLModel's, set by SQLAlchemy


def delete_events(keys: Sequence[tuple[int, str]]) -> Command:
    """Takes uncharged outcomes away that a measurement supersedes."""
    return Command("DELETE FROM usage_event WHERE day = $1 AND request_id = $2", keys)


def open_batch(session_id: SessionId, first_seq: int, now_us: int) -> Query:
    """Answers with the number of a new batch, from which its entries have their ids."""
    return Query(
        "INSERT INTO batch (spool_uuid, incarnation, first_seq, create_time_us) VALUES ($1, $2, $3, $4) "
        "RETURNING batch_id",
        (session_id.spool_uuid, session_id.incarnation, first_seq, now_us),
    )


def insert_events(batch_id: int, first_seq: int, posted: Posted) -> Insert:
    """Posts events. One whose id is there already ends the transaction, and it runs again, looking for such."""
    first_entry_id = batch_id * ENTRIES_PER_BATCH - first_seq
    entry_ids = [first_entry_id + seq for seq in posted.seqs]
    values = (posted.days, *posted.fields, posted.charges_nanousd, posted.overflows_nanousd, entry_ids)
    return Insert(UsageEventRow.__table__, _EVENT_COLUMNS, values)  # type: ignore[attr-defined]  # SQLModel's, set by SQLAlchemy


def insert_quarantined(session_id: SessionId, records: Iterable[tuple[int, str, bytes]], now_us: int) -> Insert:
    """Keeps records aside as (seq, reason, bytes)."""
    rows = [(session_id.spool_uuid, session_id.incarnation, *record, now_us) for record in records]
    return insert_of_rows(QuarantineRow.__table__, _QUARANTINE_COLUMNS, rows)  # type: ignore[attr-defined]  # SQLModel's, set by SQLAlchemy
