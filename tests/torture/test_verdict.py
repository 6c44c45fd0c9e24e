"""What the verdict says of estimates and power cuts, and how its table tells it. Its other rules: test_mutations.py."""

import random
from pathlib import Path

import pytest

from protos.usage.v1 import usage_pb2 as pb
from tests.torture import disk
from tests.torture.evidence import Books, Ending, Event, Evidence, Kill, Reported, Sighting, Tokens
from tests.torture.faults import Fault, Kind
from tests.torture.report import Finding, table
from tests.torture.verdict import Verdict, cost_nanousd, judge

TOKENS = Tokens(10, 5)
COST = cost_nanousd(TOKENS)
NOW_S = 1000.0


def estimate(charged_nanousd: int = COST, hold_nanousd: int = 10 * COST) -> Event:
    return Event("r", "acme", pb.OUTCOME_ESTIMATED, TOKENS, charged_nanousd, hold_nanousd, NOW_S, "spool")


def seen(ending: Ending, tokens: Tokens | None = None) -> Sighting:
    return Sighting("r", "acme", "edge0", NOW_S, NOW_S + 1, 200, ending, tokens)


def said(reported: Reported | None, sighting: Sighting, *events: Event) -> list[str]:
    """Violations that are about the request; the ledger of these cases has no accounts."""
    reports = [reported] if reported is not None else []
    found = judge(Evidence(reports, [sighting], Books(events))).violations
    return [each for each in found if "no entry says so" not in each and "tokens are neither" not in each]


NO_REPORT = Reported("r", None, True)


@pytest.mark.parametrize(
    ("event", "reported", "sighting", "violation"),
    [
        (estimate(), NO_REPORT, seen(Ending.CANCELLED), None),
        (estimate(COST // 2, COST // 2), NO_REPORT, seen(Ending.CANCELLED), None),
        (estimate(COST, COST - 1), NO_REPORT, seen(Ending.CANCELLED), "an estimate of"),
        (estimate(COST + 1), NO_REPORT, seen(Ending.CANCELLED), "an estimate of"),
        (estimate(), Reported("r", TOKENS, True), seen(Ending.CANCELLED), "and it was estimated"),
        (estimate(), NO_REPORT, seen(Ending.COMPLETED, TOKENS), "its client was told 15 tokens"),
    ],
)
def test_an_estimate_is_bounded_and_for_nothing_that_was_reported(
    event: Event, reported: Reported, sighting: Sighting, violation: str | None
) -> None:
    found = said(reported, sighting, event)
    assert (found == []) if violation is None else any(violation in each for each in found), found


@pytest.mark.parametrize(
    ("is_power_cut", "cut_after_s", "edge", "ending", "is_excused"),
    [
        (True, 0.5, "edge0", Ending.BROKEN, True),
        (True, 0.5, "edge0", Ending.COMPLETED, False),
        (True, 0.5, "edge1", Ending.BROKEN, False),
        (False, 0.5, "edge0", Ending.BROKEN, False),
        (True, -5.0, "edge0", Ending.BROKEN, False),
        (True, 5.0, "edge0", Ending.BROKEN, False),
    ],
)
def test_only_a_power_cut_excuses_a_request_without_an_outcome(
    is_power_cut: bool, cut_after_s: float, edge: str, ending: Ending, is_excused: bool
) -> None:
    verdict = judge(
        Evidence(
            [Reported("r", TOKENS, True, begin_s=NOW_S, end_s=NOW_S + 1)],
            [seen(ending)],
            Books(),
            [Kill("spool", NOW_S + cut_after_s, is_power_cut, edge)],
        )
    )
    assert (verdict.violations == []) is is_excused, verdict.violations


def test_after_a_power_cut_is_there_what_was_synced_and_perhaps_some_of_what_was_written_since(tmp_path: Path) -> None:
    spool, copies = tmp_path / "spool", tmp_path / "spool.synced"
    synced, written = b"a" * 600 + bytes(1448), b"a" * 600 + b"b" * 1000 + bytes(448)
    for folder in (spool / "00000001", spool / "00000002", copies / "00000001"):
        folder.mkdir(parents=True)
    (spool / "00000001" / "00000001.segment").write_bytes(written)
    (spool / "00000001" / "00000002.segment").write_bytes(b"its name was not synced")
    (copies / "entries.json").write_text('["00000001", "lock", "uuid"]')
    (copies / "00000001" / "entries.json").write_text('["00000001.segment"]')
    (copies / "00000001" / "00000001.segment").write_bytes(synced)
    seen = set()
    for seed in range(20):
        (spool / "00000001").mkdir(exist_ok=True)
        (spool / "00000001" / "00000001.segment").write_bytes(written)
        (copies / "00000001" / "00000001.segment").write_bytes(synced)
        disk.cut_power(spool, random.Random(seed))
        assert sorted(path.relative_to(spool).as_posix() for path in spool.rglob("*.segment")) == [
            "00000001/00000001.segment"
        ]
        data = (spool / "00000001" / "00000001.segment").read_bytes()
        assert data == (copies / "00000001" / "00000001.segment").read_bytes()
        assert data[:600] == synced[:600]
        seen.add(data.count(b"b"))
    assert seen == {0, 424, 936, 1000}  # nothing, or up to the end of a sector
    assert not (spool / "00000002").exists()


def test_the_table_has_a_column_for_each_engine_and_every_labelled_request() -> None:
    verdict = Verdict(labelled={"estimated": [(f"request-{number}", number, 0) for number in range(500)]})
    verdict.outcomes["estimated"] = 500
    text = table(
        [
            Finding("sqlite", verdict, [Fault(1, Kind.POWER, "edge1", 1)], 3),
            Finding("postgres", Verdict(violations=["r is wrong"]), [Fault(1, Kind.KILL, "postgres", 1)], 4),
        ],
        title="A run",
        command="the command",
        commit="abc",
    )
    assert "| | sqlite | postgres |" in text
    assert "| - fault: power cut edge | 1 | 0 |" in text
    assert "| - fault: kill postgres | 0 | 1 |" in text
    assert "| **violations** | **0** | **1** |" in text
    assert "- r is wrong" in text
    assert all(f"request-{number} {number}/0" in text for number in range(500))
    assert len(text.splitlines()) < 230
