"""`make torture [SEED=n] [MINUTES=m]`: the whole house under load while a seeded schedule breaks every part of it.

Three services and three edges are real processes, on SQLite and then on PostgreSQL; behind them is the scripted
upstream with a journal, before them real clients. Processes are killed, paused and asked to end, edges lose
their power, links are cut and fall silent. At the end everything is healed, and what the upstream reported, what
clients saw and what the ledger holds is compared request by request. The exit status is 1 if anything is wrong;
docs/proofs/README.md says how to read the table.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.torture.mutations import MUTATIONS
from tests.torture.report import Finding, table
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
    parser.add_argument("--mutation", default="", choices=["", *MUTATIONS], help="break an invariant on purpose")
    parser.add_argument("--output", type=Path, help="folder for the tables, as Markdown")
    parser.add_argument("--keep", action="store_true", help="keep databases, spools and logs also where all is well")
    told = parser.parse_args()
    seed = told.seed if told.seed is not None else random.randrange(_SEED_MAX)
    engines = _ENGINES if told.engine == "both" else (told.engine,)
    command = f"python -m tests.torture --seed {seed} --minutes {told.minutes:g} --engine {told.engine}"
    if told.load != parser.get_default("load"):
        command += f" --load {told.load}"
    if told.mutation:
        command += f" --mutation {told.mutation}"
    findings = [_torture(engine, seed, told) for engine in engines]
    text = table(
        findings,
        title=f"Torture on {' and '.join(engines)}, seed {seed}, {told.minutes:g} minutes each",
        command=command,
        commit=commit_now(),
    )
    print(text, flush=True)
    if told.output is not None:
        told.output.mkdir(parents=True, exist_ok=True)
        name = f"{seed}" if told.engine == "both" else f"{told.engine}-{seed}"
        (told.output / f"{name}.md").write_text(text)
    return 1 if any(each.verdict.violations for each in findings) else 0


def _torture(engine: str, seed: int, told: argparse.Namespace) -> Finding:
    print(f"== seed {seed}, {told.minutes:g} minutes on {engine}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="tollgate-torture-"))
    run, verdict = run_once(folder, seed, told.minutes, engine, told.mutation, told.load)
    if verdict.violations or told.keep:
        print(f"{len(verdict.violations)} violations; databases, spools and logs are kept in {folder}", flush=True)
    else:
        shutil.rmtree(folder)
    return Finding(engine, verdict, run.injected, run.audits)


def commit_now() -> str:
    """What is checked out, for the head of a table."""
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
