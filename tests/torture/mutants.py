"""`python -m tests.torture.mutants [NAME ...]`: the same torture with each invariant broken on purpose; what it says.

A mutation that one seed does not bring to light is tried with the next. The exit status is 1 if one is never reported.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.torture.__main__ import commit_now
from tests.torture.mutations import MUTATIONS
from tests.torture.run import run_once

_LOAD = 24
# With kills, power cuts, second edges, long silences and lost answers within three quarters of a minute.
_SEEDS = (487, 352, 308, 124)
_VIOLATION_CHARS_MAX = 160


class _Shown(NamedTuple):
    name: str
    seed: int
    violations: Sequence[str]


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutations; all of them if none is named")
    parser.add_argument("--seeds", type=int, nargs="+", default=_SEEDS, help="tried in this order")
    parser.add_argument("--minutes", type=float, default=0.75, help="how long each try takes")
    parser.add_argument("--engine", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--output", type=Path, help="file for the table, as Markdown")
    told = parser.parse_args()
    if unknown := set(told.names) - MUTATIONS.keys():
        parser.error(f"no mutation is called {', '.join(sorted(unknown))}: choose from {', '.join(MUTATIONS)}")
    shown = [_try(name, told) for name in told.names or MUTATIONS]
    text = _table(shown, told)
    print(text, flush=True)
    if told.output is not None:
        told.output.write_text(text)
    return 0 if all(each.violations for each in shown) else 1


def _try(name: str, told: argparse.Namespace) -> _Shown:
    for seed in told.seeds:
        print(f"== {name}, seed {seed}", flush=True)
        folder = Path(tempfile.mkdtemp(prefix="tollgate-torture-"))
        try:
            _, verdict = run_once(folder, seed, told.minutes, told.engine, name, _LOAD)
        finally:
            shutil.rmtree(folder)
        print(f"{len(verdict.violations)} violations", flush=True)
        if verdict.violations:
            return _Shown(name, seed, verdict.violations)
    return _Shown(name, told.seeds[-1], ())


def _table(shown: Sequence[_Shown], told: argparse.Namespace) -> str:
    seeds = " ".join(map(str, told.seeds))
    command = f"python -m tests.torture.mutants --seeds {seeds} --minutes {told.minutes:g} --engine {told.engine}"
    return "\n".join(
        [
            "# The proof can fail",
            "",
            f"`{' '.join([command, *told.names])}` at commit `{commit_now()}`.",
            "",
            "Each row is a torture run with one rule of the product broken on purpose",
            "(`tests/torture/mutations.py`), at the first of these seeds that brings it to light.",
            "",
            "| mutation | breaks | seed | violations | one of them |",
            "|---|---|---|---|---|",
            *(
                f"| `{each.name}`: {MUTATIONS[each.name].what} | {MUTATIONS[each.name].breaks} | {each.seed} "
                f"| {len(each.violations)} | {_one_of(each.violations)} |"
                for each in shown
            ),
            "",
        ]
    )


def _one_of(violations: Sequence[str]) -> str:
    if not violations:
        return "**not reported**"
    # What the witnesses say, rather than a process that ended.
    first = next((each for each in violations if "\n" not in each), violations[0]).split("\n")[0]
    return first if len(first) <= _VIOLATION_CHARS_MAX else f"{first[:_VIOLATION_CHARS_MAX]}..."


if __name__ == "__main__":
    sys.exit(main())
