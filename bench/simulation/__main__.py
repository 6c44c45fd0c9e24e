"""`python -m bench.simulation`: what leases cost at scale. Writes its page and plots where `--output` says.

10,000 accounts by Zipf's law, 100 edges, 5,000 requests a second. The code is the product's: meters, acquirers, spools
and shippers at the edges, the servicers, rules and SQL of usage_svc on a SQLite. Time is simulated, and the network is
a function call with a delay.
"""

import argparse
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import structlog

from bench.simulation.model import Second, Simulation
from bench.simulation.page import page, plots
from bench.simulation.population import Population
from bench.simulation.virtual_loop import VirtualLoop


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--edges", type=int, default=100)
    parser.add_argument("--requests-per-s", type=float, default=5_000)
    parser.add_argument("--seconds", type=int, default=60, help="measured, after the warm-up")
    parser.add_argument("--warm-up", type=int, default=65, help="seconds; leases remember two minutes")
    parser.add_argument("--output", type=Path, help="folder for simulation.md and its plots")
    told = parser.parse_args()
    with ProcessPoolExecutor(2) as processes:
        either = {name: processes.submit(_simulate, told, name == "affinity") for name in ("affinity", "no affinity")}
        runs = {name: run.result() for name, run in either.items()}
    command = "python -m bench.simulation " + " ".join(
        f"--{name.replace('_', '-')} {getattr(told, name):g}"
        for name in ("seed", "accounts", "edges", "requests_per_s", "seconds", "warm_up")
    )
    text = page(runs, told.warm_up, command=command, commit=_commit())
    print(text)
    if told.output is not None:
        told.output.mkdir(parents=True, exist_ok=True)
        (told.output / "simulation.md").write_text(text)
        for name, svg in plots(runs).items():
            (told.output / name).write_text(svg)
    return 0


def _simulate(told: argparse.Namespace, with_affinity: bool) -> Sequence[Second]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    shared_memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared_memory if shared_memory.is_dir() else None))
    population = Population(told.seed, told.accounts, told.edges, told.requests_per_s)
    simulation = Simulation(population, told.edges, told.requests_per_s, with_affinity, folder)
    loop = VirtualLoop()
    start = time.monotonic()
    try:
        loop.run_until_complete(simulation.run(loop, told.warm_up + told.seconds))
    finally:
        loop.close()
        shutil.rmtree(folder)
    print(f"affinity {with_affinity}: {time.monotonic() - start:.0f} s of real time", file=sys.stderr)
    return simulation.seconds


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
