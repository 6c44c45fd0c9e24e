"""What the edge can be told, by environment variables that begin with TOLLGATE_EDGE_."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from chassis.loopback import host_of
from chassis.settings import PREFIX, Port, PositiveSeconds, ProcessSettings, variable

Bytes = Annotated[int, Field(ge=1)]


class EdgeSettings(ProcessSettings):
    """Settings of the HTTP edge."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}EDGE_", extra="ignore", frozen=True, env_ignore_empty=True)

    listen_host: str = Field("127.0.0.1", description="Address on which the API is served.")
    listen_port: Port = Field(8080, description="Port on which the API is served; 0 lets the system choose.")
    https_certificate_file: Path | None = Field(
        None,
        description="PEM file with a certificate and its chain: set it and the next, and customers are served HTTPS "
        "instead of HTTP. Read again when it changes.",
    )
    https_key_file: Path | None = Field(None, description="PEM file with the private key of that certificate.")
    processes: Annotated[int, Field(ge=1, le=256)] = Field(
        1,
        description="How many processes serve the port side by side, one per core; each has a spool of its own in the "
        "data folder, and /metrics shows the sum of them all.",
    )
    auth_address: str = Field("127.0.0.1:7101", description="Where auth_svc listens: host:port.")
    catalog_address: str = Field("127.0.0.1:7102", description="Where catalog_svc listens: host:port.")
    usage_address: str = Field("127.0.0.1:7103", description="Where usage_svc listens: host:port.")
    data_dir: Path = Field(
        Path(".tollgate/edge"), description="Folder for the spool and the last catalog; one edge per folder."
    )
    adopt_dir: Path | None = Field(
        None,
        description="A folder in which several edges have their data folders: this one then ships and seals the spools "
        "of those that died and did not come back within a minute or so. Not set: nothing is adopted.",
    )
    models_public: bool = Field(False, description="Whether GET /v1/models answers without a key.")
    console: bool = Field(True, description="Whether customers get the web page at /console.")
    access_log: bool = Field(True, description="Whether one line per request is logged.")

    body_bytes_max: Bytes = Field(20 * 1024 * 1024, description="Largest request body; larger ones get 413.")
    body_timeout_s: PositiveSeconds = Field(60.0, description="How long a client may take to send a request body.")
    header_bytes_max: Bytes = Field(16 * 1024, description="Largest single header line, and largest request line.")
    header_count_max: Annotated[int, Field(ge=8, le=1000)] = Field(100, description="Most headers in one request.")
    header_timeout_s: PositiveSeconds = Field(
        30.0, description="How long a new connection may take until its first request's headers are here."
    )
    connections_per_address_max: Annotated[int, Field(ge=0)] = Field(
        5000,
        description="Most connections of one client address to one edge process; "
        "0: no limit. Without effect behind trusted proxies.",
    )
    failed_keys_per_minute: Annotated[int, Field(ge=0)] = Field(
        60,
        description="How many keys that do not exist one client address may try within a minute before it gets 429, "
        "to one edge process; 0: no limit. Keys that are known here go on working.",
    )
    trusted_proxy_hops: Annotated[int, Field(ge=0, le=10)] = Field(
        0,
        description="How many proxies stand before the edge and append to X-Forwarded-For the address that they see. "
        "With 0 the client's address is that of the connection. Only where nobody reaches the edge past them.",
    )
    keep_alive_s: PositiveSeconds = Field(75.0, description="How long a connection may sit without a request.")
    client_stall_s: PositiveSeconds = Field(
        300.0, description="How long a client may not read at all from its stream before it counts as gone."
    )
    comment_interval_s: PositiveSeconds = Field(15.0, description="After this much silence a stream gets a comment.")

    key_cache_entries_max: Annotated[int, Field(ge=1)] = Field(100_000, description="Most API keys held in memory.")
    key_max_age_s: PositiveSeconds = Field(
        900.0, description="How long known keys go on working while auth_svc cannot be reached."
    )
    unknown_key_s: PositiveSeconds = Field(5.0, description="How long a key stays known as unknown.")
    rpc_timeout_s: PositiveSeconds = Field(5.0, description="Deadline of a call to a service that a request waits for.")

    upstream_connections_max: Annotated[int, Field(ge=1)] = Field(
        10_000, description="Most connections to one deployment."
    )
    upstream_idle_s: PositiveSeconds = Field(
        30.0, description="How long an unused upstream connection is kept; below the keep-alive of usual servers."
    )
    upstream_attempts_max: Annotated[int, Field(ge=1, le=10)] = Field(
        3, description="Most deployments that are tried for one request."
    )
    answer_bytes_max: Bytes = Field(64 * 1024 * 1024, description="Largest answer of an upstream that is not a stream.")
    event_bytes_max: Bytes = Field(
        64 * 1024 * 1024,
        description="Largest single event of a stream; above body_bytes_max, since the last may repeat the request.",
    )
    abandoned_drain_s: PositiveSeconds = Field(
        600.0, description="How long a stream is read on to its usage after its client has gone."
    )
    abandoned_drains_max: Annotated[int, Field(ge=0)] = Field(
        1000,
        description="Most streams that are read on after their clients have gone. Past it the upstream is closed, and "
        "the request is billed by an estimate from what was delivered.",
    )

    idempotency_answer_bytes_max: Annotated[int, Field(ge=0, le=1024 * 1024)] = Field(
        256 * 1024,
        description="Largest answer that is kept for the repetition of a request with an Idempotency-Key; only for API "
        "keys that log outputs.",
    )

    spool_bytes_max: Bytes = Field(
        1024 * 1024 * 1024, description="Largest spool on disk; when full, requests get 503."
    )
    spool_segment_bytes: Bytes = Field(8 * 1024 * 1024, description="Size of one spool file.")
    durability: Literal["group", "interval"] = Field(
        "group",
        description=(
            "When an answer's end is released: group waits until its usage is on disk (one sync for all that "
            "wait); interval does not wait, and can lose the usage of the last durability_interval_s in a power cut."
        ),
    )
    durability_interval_s: PositiveSeconds = Field(0.2, description="Time between syncs in interval mode.")
    ship_linger_s: PositiveSeconds = Field(1.0, description="How long usage waits for company before it is shipped.")
    ship_batch_max: Annotated[int, Field(ge=1, le=1000)] = Field(1000, description="Most usage records in one call.")
    session_margin_s: PositiveSeconds = Field(
        5.0, description="Admission ends this long before usage_svc may think that this edge is lost."
    )
    outage_s: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="For how long accounts should be able to go on at their present rate of spending while usage_svc "
        "cannot be reached: what is leased for each is then larger by two to four times that spend, where it has the "
        "funds. 0: at least half a minute. Of no use beyond TOLLGATE_USAGE_SESSION_TTL_S.",
    )

    log_body_bytes_max: Annotated[int, Field(ge=1, le=4 * 1024 * 1024)] = Field(
        1024 * 1024,
        description="How much is kept of a captured input, of an output, of a raw stream; what is left out is marked.",
    )
    log_retention_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        30, description="For how long captured inputs and outputs are kept where their key does not say."
    )
    log_spool_bytes_max: Bytes = Field(
        256 * 1024 * 1024,
        description="Largest spool of captured inputs and outputs on disk, while usage_svc is away; what comes then is "
        "dropped. They are also dropped while less than spool_bytes_max is free on the disk.",
    )
    log_memory_bytes_max: Bytes = Field(
        128 * 1024 * 1024,
        description="Most memory for captured inputs and outputs that are not on disk yet; beyond it they are cut.",
    )

    endpoint_lag_s: Annotated[float, Field(ge=0)] = Field(
        5.0, description="After SIGTERM: how long to go on accepting while load balancers learn that we are not ready."
    )
    drain_s: PositiveSeconds = Field(
        600.0, description="After that: how long open requests may take to finish; then their upstreams are closed."
    )

    @model_validator(mode="after")
    def _https_is_whole(self) -> Self:
        files = {name: getattr(self, name) for name in ("https_certificate_file", "https_key_file")}
        unset = [variable(type(self), name) for name, file in files.items() if file is None]
        if len(unset) == 1:
            raise ValueError(f"{unset[0]}: is not set, and HTTPS needs both of its files")
        return self

    @model_validator(mode="after")
    def _plaintext_stays_here(self) -> Self:
        for name in ("auth_address", "catalog_address", "usage_address"):
            self.refuse_plaintext(name, host_of(getattr(self, name)), "spoken")
        return self
