"""The table, the goals, and the exit status. Pure but for printing."""

from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.rounds import Measurements

BASELINE = "aiohttp"

_ROWS = {
    "edge_cpu_us_per_request": "CPU per request, edge (us)",
    "services_cpu_us_per_request": "CPU per request, services (us)",
    "edge_cpu_us_per_stream": "CPU per stream of 64 events, edge (us)",
    "services_cpu_us_per_stream": "CPU per stream, services (us)",
    "requests_per_s": "requests per second",
    "streams_per_s": "streams per second",
    "latency_ms_p50": "latency at 200 requests/s, p50 (ms)",
    "latency_ms_p99": "latency at 200 requests/s, p99 (ms)",
    "added_ms_p50": "added to the upstream's own, p50 (ms)",
    "edge_mb_at_open_streams": "memory at open streams, edge (MB)",
    "services_mb_at_open_streams": "memory at open streams, services (MB)",
}
# A target without services is compared by what it is: its edge.
_COUNTERPART = {
    "services_cpu_us_per_request": "edge_cpu_us_per_request",
    "services_cpu_us_per_stream": "edge_cpu_us_per_stream",
}


@dataclass(frozen=True, slots=True)
class Goal:
    """An upper bound on a measure: on its ratio to the baseline, or on itself."""

    measure: str
    most: float
    relative: bool

    def text(self) -> str:
        return f"<= {self.most:g}x" if self.relative else f"< {self.most:g}"


GOALS = (
    Goal("edge_cpu_us_per_request", 1.0, True),
    Goal("services_cpu_us_per_request", 0.1, True),
    Goal("edge_cpu_us_per_stream", 1.0, True),
    Goal("services_cpu_us_per_stream", 0.1, True),
    Goal("edge_mb_at_open_streams", 150.0, False),
)


def ratio(results: dict[str, Measurements], target: str, measure: str) -> float | None:
    """The target's median over the baseline's; None where either was not measured."""
    base = results.get(BASELINE, Measurements()).values.get(_COUNTERPART.get(measure, measure))
    own = results[target].values.get(measure)
    return median(own) / median(base) if own and base and median(base) else None


def missed(results: dict[str, Measurements], target: str) -> list[str]:
    """The goals that the target did not reach, in words; a goal that could not be measured is one."""
    found = []
    for goal in GOALS:
        own = results[target].values.get(goal.measure)
        value: float | None = None
        if own:
            value = ratio(results, target, goal.measure) if goal.relative else median(own)
        if value is None or value > goal.most:
            seen = "not measured" if value is None else f"{value:.2f}"
            found.append(f"{target}: {_ROWS[goal.measure]}: {seen}, goal {goal.text()}")
    return found


def show(console: Console, results: dict[str, Measurements], names: list[str], title: str) -> None:
    """Prints one table of what was measured of the named targets."""
    table = Table(title=title, caption="median (min to max) of all rounds; x: ratio to bare aiohttp in this run")
    table.add_column("measure")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("goal", justify="right")
    goals = {goal.measure: goal for goal in GOALS}
    for measure, label in _ROWS.items():
        if not any(measure in results[name].values for name in names):
            continue
        cells = [_cell(results, name, measure) for name in names]
        table.add_row(label, *cells, goals[measure].text() if measure in goals else "")
    console.print(table)


def _cell(results: dict[str, Measurements], name: str, measure: str) -> str:
    values = results[name].values.get(measure)
    if not values:
        return "-"
    shown = f"{_number(median(values))} ({_number(min(values))} to {_number(max(values))})"
    times = None if name == BASELINE else ratio(results, name, measure)
    if times is None:
        return shown
    goal = next((goal for goal in GOALS if goal.measure == measure), None)
    value = times if goal is None or goal.relative else median(values)
    color = "" if goal is None else "[green]" if value <= goal.most else "[red]"
    return f"{shown} {color}{times:.2f}x" + ("[/]" if color else "")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
