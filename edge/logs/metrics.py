"""What the edge reports of logs. docs/logs.md says what to do about it."""

from prometheus_client import Counter, Gauge

# outcome: sent (usage_svc has it), not_kept (usage_svc dropped it: it was deleted, had expired, or came too late); and
# lost here: memory_full, spool_full (usage_svc was away for too long), disk_full (the disk's room is the usage's),
# expired (before it could be sent), damaged, refused (usage_svc cannot read it).
LOGS = Counter("tollgate_edge_logs_total", "Captured inputs and outputs, by what became of them.", ["outcome"])
LOG_SPOOL_BYTES = Gauge("tollgate_edge_log_spool_bytes", "Disk space of logs that usage_svc does not have yet.")
LOG_MEMORY_BYTES = Gauge("tollgate_edge_log_memory_bytes", "Memory held by logs that are not on disk yet.")
