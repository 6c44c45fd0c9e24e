"""The table that a run ends with."""

from collections.abc import Sequence

from tests.torture.faults import Fault, counts
from tests.torture.verdict import Verdict

_LABELLED_SHOWN_MAX = 200


def table(verdict: Verdict, faults: Sequence[Fault], audits: int, *, title: str, command: str, commit: str) -> str:
    """Markdown."""
    endings, outcomes = verdict.endings, verdict.outcomes
    injected = counts(faults)
    rows = [
        ("requests", f"{sum(endings.values())}, of which {verdict.requests} got an id"),
        ("completed", f"{endings['completed']}"),
        ("cancelled by their clients", f"{endings['cancelled']}"),
        ("broken off, refused, unreachable", f"{endings['broken']}, {endings['refused']}, {endings['unreachable']}"),
        ("outcomes in the ledger", ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items())) or "none"),
        ("faults injected", f"{len(faults)}"),
        *((f"- {name}", f"{count}") for name, count in sorted(injected.items())),
        ("tokens reported by the upstream", f"{verdict.reported_tokens}"),
        ("tokens billed", f"{verdict.billed_tokens}"),
        ("- reported for requests labelled edge_lost", f"{verdict.lost_tokens}"),
        ("- reported for requests labelled waived", f"{verdict.waived_tokens}"),
        ("- billed by estimate beyond what was reported", f"{verdict.estimated_difference_tokens}"),
        ("**difference that no label explains**", f"**{verdict.difference_tokens}**"),
        ("largest overdraft beyond grace", f"{verdict.overdraft_nanousd} nano-USD"),
        ("audits of the live ledger", f"{audits}"),
        ("requests charged twice", f"{verdict.duplicates}"),
        ("**violations**", f"**{len(verdict.violations)}**"),
    ]
    labelled = verdict.labelled[:_LABELLED_SHOWN_MAX]
    more = len(verdict.labelled) - len(labelled)
    return "\n".join(
        [
            f"# {title}",
            "",
            f"`{command}` at commit `{commit}`.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows),
            "",
            *(["Violations:", "", *(f"- {each}" for each in verdict.violations), ""] if verdict.violations else []),
            *(["Labelled, and so not in the difference:", "", *(f"- {each}" for each in labelled)] if labelled else []),
            *([f"- and {more} more"] if more else []),
            "",
        ]
    )
