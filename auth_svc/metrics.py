"""What auth_svc counts, beside what chassis counts for every process."""

from prometheus_client import Counter, Gauge

# result: granted; suspended, which is a grant that says so; unknown, revoked, expired, all the same to callers.
AUTHENTICATIONS = Counter("tollgate_auth_authentications_total", "Keys looked up, by what was found.", ["result"])
WATCHES_OPEN = Gauge("tollgate_auth_watches_open", "Edges that watch for changes of keys at this process now.")
WATCH_REVISION = Gauge("tollgate_auth_watch_revision", "Newest revision that this process has offered to watchers.")
WATCH_POLLS_FAILED = Counter(
    "tollgate_auth_watch_polls_failed_total",
    "Times that the database could not be asked for changes; watchers hear nothing meanwhile.",
)
