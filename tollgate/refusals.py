"""`tollgate models refusals`: what edges have learnt that deployments refuse.

An edge keeps this to itself, in memory, and tells it as a metric; so that is what is read here.
"""

import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.console import RenderableType

from chassis.settings import load
from tollgate.failure import CommandFailed
from tollgate.options import AsJson
from tollgate.output import Document, show, table
from tollgate.running import running
from tollgate.settings import CommandSettings

METRIC = "tollgate_edge_stream_options_refused_until_seconds"
_ANSWER_BYTES_MAX = 64 * 1024 * 1024


def refusals(
    metrics_urls: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics-url",
            help="Where an edge tells its metrics, such as http://10.0.0.7:9464/metrics; repeat it for several. "
            "Without it, the edge that `tollgate up` runs.",
            metavar="URL",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lists options of stream_options that deployments refused, and when they will be sent again."""
    settings = load(CommandSettings)
    urls = metrics_urls or [_edge_of_up(settings)]
    now = datetime.now(UTC)
    found = [each for url in urls for each in _refused(url, _read(url, settings.timeout_s), now)]
    show({"refusals": found}, as_json, _render)


def _edge_of_up(settings: CommandSettings) -> str:
    run = running(settings.data_dir)
    if run is None:
        raise CommandFailed(
            "NOTHING_RUNNING",
            f"no stack runs on {settings.data_dir}: say with --metrics-url where the edge's metrics are",
        )
    return run.metrics_urls["edge"]


def _read(url: str, timeout_s: float) -> str:
    if not url.startswith(("http://", "https://")):
        raise CommandFailed("URL_INVALID", f"{url!r} is not an address such as http://10.0.0.7:9464/metrics")
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # noqa: S310 - http or https, see above
            return str(answer.read(_ANSWER_BYTES_MAX).decode())
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise CommandFailed(
            "METRICS_UNREACHABLE", f"{url} does not answer with metrics: {reason}. Is that an edge's metrics port?"
        ) from None


def _refused(url: str, metrics: str, now: datetime) -> Iterator[Document]:
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples if family.name == METRIC else ():
            until = datetime.fromtimestamp(sample.value, UTC)
            if until > now:
                yield {
                    "deployment_id": sample.labels["deployment"],
                    "option": sample.labels["option"],
                    "until_time": until.isoformat(timespec="seconds").replace("+00:00", "Z"),
                    "edge": url,
                }


def _render(document: Document) -> RenderableType:
    if not document["refusals"]:
        return "No deployment has refused an option of stream_options lately."
    return table(
        ["DEPLOYMENT", "REFUSES", "SENT AGAIN FROM", "EDGE"],
        (
            [each["deployment_id"], f"stream_options.{each['option']}", each["until_time"], each["edge"]]
            for each in document["refusals"]
        ),
    )
