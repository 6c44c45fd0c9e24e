"""What the edge tells Prometheus. docs/metrics.md describes each; a test holds the two together. No ids as labels."""

from functools import lru_cache
from typing import NamedTuple

from prometheus_client import Counter, Gauge

from edge.counting import Buckets, Count, LoopCounter, LoopHistogram
from pricing import TokenUsage

DURATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
OVERHEAD_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

# endpoint: chat_completions, responses, models, keys, balance, usage, requests, logs, docs, console, health, other.
# model: an id of the catalog; empty where the request named none of them.
# status: the HTTP status; 499 where the client went away before there was one.
REQUESTS = LoopCounter("tollgate_edge_requests_total", "HTTP requests answered.", ["endpoint", "model", "status"])
ERRORS = LoopCounter(
    "tollgate_edge_errors_total", "Errors that the edge answered by itself, by their row in docs/errors.md.", ["reason"]
)
DURATION = LoopHistogram(
    "tollgate_edge_request_duration_seconds",
    "From the request's head to the last byte handed to the socket.",
    ["endpoint", "model"],
    buckets=DURATION_BUCKETS_S,
)
FIRST_BYTE = LoopHistogram(
    "tollgate_edge_time_to_first_byte_seconds",
    "From the request's head to the first byte of the answer's body.",
    ["endpoint", "model"],
    buckets=DURATION_BUCKETS_S,
)
OVERHEAD = LoopHistogram(
    "tollgate_edge_overhead_seconds",
    "Time that a generation spent in the edge itself: all but waiting for its upstream.",
    ["endpoint"],
    buckets=OVERHEAD_BUCKETS_S,
)
# kind: prompt, cached, cache_write, completion, reasoning.
TOKENS = LoopCounter("tollgate_edge_tokens_total", "Tokens that upstreams reported.", ["model", "kind"])
COST = LoopCounter("tollgate_edge_cost_nanousd_total", "Charges computed by the edge, in nano-USD.", ["model"])
# outcome: measured, estimated, waived, none. ending: completed, client_gone, upstream_failed.
OUTCOMES = LoopCounter(
    "tollgate_edge_outcomes_total", "What became of admitted requests' bills.", ["outcome", "ending"]
)
OPEN_STREAMS = Gauge("tollgate_edge_open_streams", "Streams being relayed, abandoned ones included.")
ABANDONED_DRAINS = Gauge("tollgate_edge_abandoned_drains", "Streams that are read on though their client has gone.")
# how: drain (read on to its usage), abort (its deployment says so), bound (too many were being read on), timeout (it
# was read on for too long). The last three close the upstream.
ABANDONED = LoopCounter("tollgate_edge_abandoned_streams_total", "Streams whose client left before the end.", ["how"])
# result: ok, status (an error status), connect, connect_timeout, first_byte_timeout, idle_timeout, closed, garbage,
# too_large, abandoned, stopped (this process ended).
ATTEMPTS = LoopCounter("tollgate_edge_upstream_attempts_total", "Calls to upstreams.", ["deployment", "result"])
FAILOVERS = LoopCounter("tollgate_edge_upstream_failovers_total", "Times that another deployment was tried.", ["model"])
STALE_RETRIES = Counter(
    "tollgate_edge_upstream_stale_retries_total", "Requests sent again since a kept connection turned out to be closed."
)
UPSTREAM_CONNECTIONS = Gauge("tollgate_edge_upstream_connections", "Open connections to upstreams.", ["deployment"])
# policy: estimate (charged by what was delivered), waive (not charged).
UNMETERED = LoopCounter(
    "tollgate_edge_unmetered_total",
    "Answers without usable usage, through no doing of their client: look at the deployment.",
    ["deployment", "policy"],
)
# option: include_usage, continuous_usage_stats.
STREAM_OPTIONS_REFUSED = Gauge(
    "tollgate_edge_stream_options_refused_until_seconds",
    "Until when (Unix time) a deployment is not sent an option of stream_options that it refused.",
    ["deployment", "option"],
)
# result: claimed, replayed, in_flight, finished, mismatch, unavailable.
IDEMPOTENCY = LoopCounter(
    "tollgate_edge_idempotency_total", "Requests with an Idempotency-Key, by what was done with them.", ["result"]
)
IDEMPOTENCY_UNTOLD = Gauge(
    "tollgate_edge_idempotency_untold", "Ends of requests with an Idempotency-Key that usage_svc was not told yet."
)

# why: requests_per_minute, tokens_per_minute, concurrent_requests, spend; too_large (more tokens than a minute's).
LIMIT_REFUSALS = LoopCounter("tollgate_edge_limit_refusals_total", "Requests refused by a limit of their key.", ["why"])
LIMITED_KEYS = Gauge("tollgate_edge_limited_keys", "Keys with limits that were used here within the last minute.")

READY = Gauge("tollgate_edge_ready", "Processes of this edge that are ready, as GET /readyz means it.")

FAILED_KEYS = Counter("tollgate_edge_failed_keys_total", "Requests with a well-formed key that does not exist.")
CONNECTIONS_REFUSED = Counter(
    "tollgate_edge_connections_refused_total", "Connections closed at once: their address had too many open."
)

KEY_CACHE_MISSES = Counter("tollgate_edge_key_cache_misses_total", "Keys that auth_svc had to be asked about.")
KEY_CACHE_ENTRIES = Gauge("tollgate_edge_key_cache_entries", "Keys held in memory.")
KEY_CACHE_AGE = Gauge(
    "tollgate_edge_key_cache_age_seconds", "Time since auth_svc last proved that the keys held are true."
)
CATALOG_AGE = Gauge("tollgate_edge_catalog_age_seconds", "Time since catalog_svc last confirmed the catalog held.")
CATALOG_NUMBER = Gauge("tollgate_edge_catalog_number", "Number of the catalog snapshot in use.")
CREDENTIALS_MISSING = Gauge(
    "tollgate_edge_upstream_credentials_missing", "Deployments left out since their credential is not to be found here."
)


# What a request needs is found once per combination of labels. The bounds are far above what a catalog makes.
_COMBINATIONS_MAX = 50_000


class RequestMeters(NamedTuple):
    """What one combination of endpoint, model and status counts into."""

    requests: Count
    duration: Buckets
    first_byte: Buckets
    overhead: Buckets


@lru_cache(_COMBINATIONS_MAX)
def request_meters(endpoint: str, model: str, status: int) -> RequestMeters:
    """The meters of a finished request."""
    return RequestMeters(
        REQUESTS.labels(endpoint, model, str(status)),
        DURATION.labels(endpoint, model),
        FIRST_BYTE.labels(endpoint, model),
        OVERHEAD.labels(endpoint),
    )


@lru_cache(_COMBINATIONS_MAX)
def _token_meters(model: str) -> tuple[Count, Count, Count, Count, Count, Count]:
    kinds = ("prompt", "completion", "cached", "cache_write", "reasoning")
    prompt, completion, cached, cache_write, reasoning = (TOKENS.labels(model, kind) for kind in kinds)
    return prompt, completion, cached, cache_write, reasoning, COST.labels(model)


def count_tokens(model: str, usage: TokenUsage, charge_nanousd: int) -> None:
    """Adds a measured request to the counters of tokens and cost. Counters do not go down: negatives are left out."""
    prompt, completion, cached, cache_write, reasoning, cost = _token_meters(model)
    if usage.prompt_tokens > 0:
        prompt.inc(usage.prompt_tokens)
    if usage.completion_tokens > 0:
        completion.inc(usage.completion_tokens)
    if usage.cached_tokens > 0:
        cached.inc(usage.cached_tokens)
    if usage.cache_write_tokens > 0:
        cache_write.inc(usage.cache_write_tokens)
    if usage.reasoning_tokens > 0:
        reasoning.inc(usage.reasoning_tokens)
    if charge_nanousd > 0:
        cost.inc(charge_nanousd)


@lru_cache(_COMBINATIONS_MAX)
def attempts(deployment: str, result: str) -> Count:
    """The counter of one kind of attempt."""
    return ATTEMPTS.labels(deployment, result)


@lru_cache(_COMBINATIONS_MAX)
def outcomes(outcome: str, ending: str) -> Count:
    """The counter of one kind of outcome."""
    return OUTCOMES.labels(outcome, ending)
