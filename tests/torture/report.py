"""The table that a run ends with: a column for each engine, and below it what is labelled."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.torture.faults import Fault, counts
from tests.torture.verdict import LOST_WITH_POWER, Verdict

_PER_LINE = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What a run on one engine found."""

    engine: str
    verdict: Verdict
    faults: Sequence[Fault]
    audits: int


def table(findings: Sequence[Finding], *, title: str, command: str, commit: str) -> str:
    """Markdown."""
    columns = [_rows(each) for each in findings]
    names = list(dict.fromkeys(name for column in columns for name in column))
    # Kinds of faults that only one engine knows belong to the others, in the middle.
    names.sort(key=lambda name: (_ORDER.index(_family(name)), name if _family(name) == _FAULT else ""))
    lines = [
        f"# {title}",
        "",
        f"`{command}` at commit `{commit}`.",
        "",
        "| | " + " | ".join(each.engine for each in findings) + " |",
        "|---" * (len(findings) + 1) + "|",
        *(f"| {name} | " + " | ".join(column.get(name, "0") for column in columns) + " |" for name in names),
        "",
    ]
    for each in findings:
        if each.verdict.violations:
            lines += [f"Violations on {each.engine}:", "", *(f"- {text}" for text in each.verdict.violations), ""]
    for each in findings:
        lines += _labelled(each)
    return "\n".join(lines)


_FAULT = "- fault: "
_ORDER = (
    "requests",
    "completed",
    "cancelled by their clients",
    "broken off, refused, unreachable",
    "outcomes in the ledger",
    "faults injected",
    _FAULT,
    "tokens reported by the upstream",
    "tokens billed",
    "- of them by estimate, nothing being reported",
    "- reported, not billed: labelled edge_lost",
    "- reported, not billed: labelled waived",
    f"- reported, not billed: {LOST_WITH_POWER}",
    "**difference that no label explains**",
    "largest overdraft beyond grace",
    "audits of the live ledger",
    "duplicates: requests charged twice",
    "**violations**",
)


def _family(name: str) -> str:
    return _FAULT if name.startswith(_FAULT) else name


def _rows(finding: Finding) -> dict[str, str]:
    verdict = finding.verdict
    endings, outcomes = verdict.endings, verdict.outcomes
    unbilled = {label: sum(told for _, _, told in requests) for label, requests in verdict.labelled.items()}
    told = [
        f"{sum(endings.values())}, of which {verdict.requests} got an id",
        f"{endings['completed']}",
        f"{endings['cancelled']}",
        f"{endings['broken']}, {endings['refused']}, {endings['unreachable']}",
        ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items())) or "none",
        f"{len(finding.faults)}",
        "",
        f"{verdict.reported_tokens}",
        f"{verdict.billed_tokens}",
        f"{verdict.estimated_tokens}",
        f"{unbilled.get('edge_lost', 0)}",
        f"{unbilled.get('waived', 0)}",
        f"{unbilled.get(LOST_WITH_POWER, 0)}",
        f"**{verdict.difference_tokens}**",
        f"{verdict.overdraft_nanousd} nano-USD",
        f"{finding.audits}",
        f"{verdict.duplicates}",
        f"**{len(verdict.violations)}**",
    ]
    rows = dict(zip(_ORDER, told, strict=True))
    del rows[_FAULT]
    return rows | {f"{_FAULT}{name}": f"{count}" for name, count in counts(finding.faults).items()}


def _labelled(finding: Finding) -> list[str]:
    """Every request with tokens that are billed without a report, or reported without a bill."""
    lines = []
    for label, requests in sorted(finding.verdict.labelled.items()):
        each = [f"{request_id} {billed}/{told}" for request_id, billed, told in requests]
        rows = ["  ".join(each[start : start + _PER_LINE]) for start in range(0, len(each), _PER_LINE)]
        summary = f"{finding.engine}, {label}: {len(each)} requests, tokens billed/reported"
        lines += ["<details>", f"<summary>{summary}</summary>", "", "```text", *rows, "```", "", "</details>", ""]
    return lines
