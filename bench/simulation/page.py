"""The page that a simulation ends with, and its plots."""

from collections.abc import Mapping, Sequence

from bench.simulation.model import Second
from bench.simulation.svg import line_chart

Runs = Mapping[str, Sequence[Second]]
_GOALS = {"affinity": 0.05, "no affinity": 0.35}
_HOTTEST_GOAL = 10.0


def page(runs: Runs, warm_up_s: int, *, command: str, commit: str) -> str:
    """Markdown."""
    measured = {name: seconds[warm_up_s:] for name, seconds in runs.items()}
    return "\n".join(
        [
            "# Leases at scale",
            "",
            f"`{command}` at commit `{commit}`.",
            "`bench/simulation/__main__.py` says what is simulated and what is real.",
            "",
            "| | with affinity | without | goal |",
            "|---|---|---|---|",
            *(f"| {name} | {' | '.join(values)} | {goal} |" for name, values, goal in _rows(measured)),
            "",
            "*Affinity*: a balancer sends a key to few edges, more of them only where the key has more traffic than",
            "half an edge's fair share. Without it each request goes to any edge. A request is *refused while funds*",
            "*lay idle* where its account's credits, less all charges and less the holds of all open requests at all",
            "edges, would have covered its hold. The warm-up is in the plots only: at first no edge has a lease.",
            "",
            *(f"![{name}]({name})\n" for name in plots(runs)),
        ]
    )


def plots(runs: Runs) -> dict[str, str]:
    """SVG by file name."""
    return {
        "simulation-lease-calls.svg": line_chart(
            "Lease calls per request",
            {name: [each.lease_calls / max(1, each.requests) for each in seconds] for name, seconds in runs.items()},
            goals={f"goal, {name}": goal for name, goal in _GOALS.items()},
            unit="calls per request",
        ),
        "simulation-hottest-row.svg": line_chart(
            "Updates of the account row that is updated most",
            {name: [each.hottest_updates for each in seconds] for name, seconds in runs.items()},
            goals={"goal": _HOTTEST_GOAL},
            unit="updates per second",
        ),
        "simulation-refused-while-idle.svg": line_chart(
            "Requests refused while funds of their account lay idle",
            {
                name: [100 * each.refused_while_idle / max(1, each.requests) for each in seconds]
                for name, seconds in runs.items()
            },
            goals={},
            unit="% of all requests",
        ),
    }


def _rows(measured: Runs) -> list[tuple[str, list[str], str]]:
    runs = list(measured.values())

    def total(name: str) -> list[int]:
        return [sum(getattr(each, name) for each in seconds) for seconds in runs]

    requests = total("requests")

    def share(name: str) -> list[float]:
        return [count / whole for count, whole in zip(total(name), requests, strict=True)]

    def mean(name: str) -> list[str]:
        return [f"{sum(getattr(each, name) for each in seconds) / len(seconds):.1f}" for seconds in runs]

    return [
        ("requests", [f"{count}" for count in requests], ""),
        (
            "lease calls per request",
            [f"**{each:.3f}**" for each in share("lease_calls")],
            "at most 0.05 with affinity, 0.35 without",
        ),
        ("accounts asked for in these calls, per request", [f"{each:.3f}" for each in share("demands")], ""),
        (
            "updates per second of the account row that is updated most, mean",
            [f"**{each}**" for each in mean("hottest_updates")],
            "about ten",
        ),
        ("the same of the account with the most requests", mean("busiest_updates"), ""),
        ("requests refused", [f"{each:.3%}" for each in share("refused")], ""),
        ("requests refused while funds lay idle", [f"**{each:.3%}**" for each in share("refused_while_idle")], ""),
        ("requests refused since this edge could not ask", [f"{each:.3%}" for each in share("unavailable")], "0"),
    ]
