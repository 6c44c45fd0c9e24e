"""`make torture [SEED=n] [MINUTES=m]`: the whole house under load while a seeded schedule breaks every part of it.

Three services and three edges are real processes, on SQLite and then on PostgreSQL; behind them is the scripted
upstream with a journal, in front of them are real clients. Processes are killed, paused and asked to end, links are cut
and fall silent. At the end everything is healed, and what the upstream reported, what clients saw and what the ledger
holds is compared request by request. The exit status is 1 if anything is wrong; docs/proofs/README.md says how to read
the table.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.torture.report import table
from tests.torture.run import run_once

_ENGINES = ("sqlite", "postgres")
_SEED_MAX = 1_000_000


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, help="decides the faults and what customers do; drawn if not given")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long each engine is tortured")
    parser.add_argument("--engine", choices=[*_ENGINES, "both"], default="both")
    parser.add_argument("--load", type=int, default=24, help="customers at a time")
    parser.add_argument("--mutation", default="", help="break an invariant on purpose; see tests/torture/mutations.py")
    parser.add_argument("--output", type=Path, help="folder for the tables, as Markdown")
    parser.add_argument("--keep", action="store_true", help="keep databases, spools and logs also where all is well")
    told = parser.parse_args()
    seed = told.seed if told.seed is not None else random.randrange(_SEED_MAX)
    engines = _ENGINES if told.engine == "both" else (told.engine,)
    passed = [_torture(engine, seed, told) for engine in engines]
    return 0 if all(passed) else 1


def _torture(engine: str, seed: int, told: argparse.Namespace) -> bool:
    command = f"python -m tests.torture --engine {engine} --seed {seed} --minutes {told.minutes:g}"
    print(f"== {command}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="tollgate-torture-"))
    run, verdict = run_once(folder, seed, told.minutes, engine, told.mutation, told.load)
    text = table(
        verdict,
        run.injected,
        run.audits,
        title=f"Torture on {engine}, seed {seed}, {told.minutes:g} minutes",
        command=command,
        commit=_commit(),
    )
    print(text, flush=True)
    if told.output is not None:
        told.output.mkdir(parents=True, exist_ok=True)
        (told.output / f"{engine}-{seed}.md").write_text(text)
    if verdict.violations or told.keep:
        print(f"databases, spools and logs are kept in {folder}", flush=True)
    else:
        shutil.rmtree(folder)
    return not verdict.violations


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
