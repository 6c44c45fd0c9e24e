"""What the edge's metering reports. No ids as labels; every label's values are listed here."""

from prometheus_client import Counter, Gauge, Histogram

SPOOL_BYTES = Gauge("tollgate_edge_spool_bytes", "Disk space that the spool has allocated.")
SPOOL_UNSHIPPED_RECORDS = Gauge(
    "tollgate_edge_spool_unshipped_records", "Spooled records that usage_svc has not acknowledged."
)
SPOOL_LAG = Gauge("tollgate_edge_spool_lag_seconds", "Age of the oldest record that usage_svc has not acknowledged.")
SPOOL_SYNC_DURATION = Histogram(
    "tollgate_edge_spool_sync_duration_seconds",
    "Time of one sync of the spool to disk; its count is the number of rounds.",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)
# outcome: shipped (in usage_svc now), duplicate (was posted before), quarantined (kept aside, charged to nobody).
SPOOL_RECORDS = Counter("tollgate_edge_spool_records_total", "Spooled records by what became of them.", ["outcome"])
# kind: torn (an unfinished write at the end of a file: no answer had waited for it), corrupt (good records follow: the
# disk or somebody else has changed it; what it hit is reported by position in the log, and set aside in usage_svc).
SPOOL_DAMAGES = Counter(
    "tollgate_edge_spool_damages_total", "Places in the spools of former processes that could not be read.", ["kind"]
)
SPOOLS_ADOPTED = Counter("tollgate_edge_spools_adopted_total", "Spools of dead edges that this one brought home.")
SESSION_OPENED = Counter("tollgate_edge_sessions_opened_total", "Metering sessions opened; more than one: was fenced.")
HEARTBEAT_AGE = Gauge(
    "tollgate_edge_heartbeat_age_seconds", "Time since the sending of the last heartbeat that usage_svc acknowledged."
)
# outcome: granted, funds_used_up, funds_held, superseded (an answer that nobody waited for), failed (no answer).
LEASE_REFILLS = Counter("tollgate_edge_lease_refills_total", "Demands for funds by how they ended.", ["outcome"])
LEASES_OPEN = Gauge("tollgate_edge_leases", "Accounts for which funds are leased.")
HELD_NANOUSD = Gauge("tollgate_edge_held_nanousd", "Funds held for open requests.")
FREE_NANOUSD = Gauge("tollgate_edge_free_nanousd", "Leased funds that no open request holds.")
OPEN_REQUESTS = Gauge("tollgate_edge_metered_requests_open", "Admitted requests that have no outcome yet.")
# reason: funds_used_up, funds_held, session_expired, usage_unreachable, spool_full, spool_unwritable.
ADMISSIONS_REFUSED = Counter("tollgate_edge_admissions_refused_total", "Requests that were not admitted.", ["reason"])
