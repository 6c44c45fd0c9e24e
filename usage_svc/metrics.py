"""What usage_svc counts, beside what chassis counts for every process."""

from prometheus_client import Counter, Gauge, Histogram

# outcome: measured, estimated, waived, none, edge_lost. source: upstream_final, upstream_partial, estimated, none.
EVENTS = Counter("tollgate_usage_events_total", "Usage events posted, by how they ended.", ["outcome", "source"])
# kind: prompt, completion, cached (of the prompt), cache_write (of the prompt), reasoning (of the completion).
TOKENS = Counter("tollgate_usage_tokens_total", "Tokens of posted usage events.", ["kind"])
CHARGED = Counter("tollgate_usage_charged_nanousd_total", "Charges posted, in nano-USD.")
# why: beyond_lease (it held too little), last (an account's last request, which may), lease_gone (unknown or closed),
# lease_foreign (not this session's or account's).
OVERFLOW = Counter(
    "tollgate_usage_overflow_nanousd_total",
    "Charges that did not fit into their lease and were taken from the account at once, in nano-USD.",
    ["why"],
)
DUPLICATES = Counter("tollgate_usage_duplicates_total", "Usage events dropped since their request was posted before.")
# reason: see usage_svc/rating.py, QUARANTINE_REASONS.
QUARANTINED = Counter("tollgate_usage_quarantined_total", "Records set aside and charged to nobody.", ["reason"])
# outcome: granted, funds_used_up, funds_held, superseded.
DEMANDS = Counter("tollgate_usage_demands_total", "Demands for funds, by how they ended.", ["outcome"])
# outcome: claimed, in_flight, finished, mismatch.
IDEMPOTENCY_CLAIMS = Counter(
    "tollgate_usage_idempotency_claims_total", "Claims of customers' idempotency keys, by how they ended.", ["outcome"]
)
BATCH_RECORDS = Histogram(
    "tollgate_usage_batch_records", "Records in a batch from an edge.", buckets=(1, 3, 10, 30, 100, 300, 1000)
)
BATCH_DURATION = Histogram(
    "tollgate_usage_batch_duration_seconds",
    "Time to post a batch, its commit included.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
# state: alive, lost, drained, forced.
SESSIONS = Gauge("tollgate_usage_sessions", "Sessions of edges, by state, at the last sweep.", ["state"])
OPEN_LEASES = Gauge("tollgate_usage_open_leases", "Leases that are not closed, at the last sweep.")
RESERVED = Gauge("tollgate_usage_reserved_nanousd", "Funds set aside in open leases, in nano-USD, at the last sweep.")
SWEPT = Counter("tollgate_usage_sessions_lost_total", "Sessions fenced since no heartbeat came in time.")
RECALLS = Counter("tollgate_usage_recalls_total", "Leases whose idle funds were asked back for another edge.")
RECALL_WATCHERS = Gauge("tollgate_usage_recall_watchers", "Edges that watch this process for recalls and credits.")
FORCED_NANOUSD = Counter(
    "tollgate_usage_forced_nanousd_total", "Funds released by force from sessions whose spool is not here, in nano-USD."
)
# outcome: kept (new, or sent before), and dropped: expired, deleted (by its customer, before it came), late, invalid.
LOGS = Counter("tollgate_usage_logs_total", "Captured inputs and outputs that edges sent.", ["outcome"])
# by: expired, customer.
LOGS_DELETED = Counter("tollgate_usage_logs_deleted_total", "Logs removed, by whom.", ["by"])
LEDGER_DRIFT = Gauge(
    "tollgate_usage_ledger_drift_nanousd",
    "By how much balances differ from the replay of all entries, summed over accounts, at the last look; 0 is right.",
)
AUDIT_VIOLATIONS = Gauge("tollgate_usage_audit_violations", "Violations that the last audit found, at most 100.")
