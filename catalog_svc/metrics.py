"""What catalog_svc counts, beside what chassis counts for every process."""

from prometheus_client import Counter, Gauge

# result: changed (a new snapshot); unchanged (the catalog was like that already); repeated (a request_id that had its
# answer); dry_run; invalid (the document was refused).
APPLICATIONS = Counter("tollgate_catalog_applications_total", "Documents applied, by what came of it.", ["result"])
SNAPSHOT_NUMBER = Gauge("tollgate_catalog_snapshot_number", "Newest snapshot that this process knows; 0 for none.")
MODELS = Gauge("tollgate_catalog_models", "Models in that snapshot.")
DEPLOYMENTS = Gauge("tollgate_catalog_deployments", "Deployments in that snapshot.")
WATCHES_OPEN = Gauge("tollgate_catalog_watches_open", "Edges that watch for snapshots at this process now.")
WATCH_POLLS_FAILED = Counter(
    "tollgate_catalog_watch_polls_failed_total",
    "Times that the database could not be asked for the newest snapshot; watchers hear nothing meanwhile.",
)
