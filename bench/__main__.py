"""`python -m bench`: Tollgate and bare aiohttp side by side, in one run, on one machine."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from bench.process import Target, python_module, raise_file_limit
from bench.report import BASELINE, missed, show
from bench.rounds import Plan, measure
from bench.stack import INTERVAL, LIMITED, PLAIN, tollgate

_FULL = Plan(rounds=5, requests=5_000, streams=300, latency_s=3.0, memory_s=4.0)
_QUICK = Plan(rounds=2, requests=2_000, streams=120, latency_s=1.0, memory_s=2.0)


@contextmanager
def _aiohttp(upstream: str) -> Iterator[Target]:
    with python_module("bench.baseline", "--upstream", upstream) as (process, ready):
        yield Target(BASELINE, f"http://127.0.0.1:{ready['port']}", "unused", {"edge": [process.pid]})


_VARIANTS = {variant.name: partial(tollgate, variant=variant) for variant in (PLAIN, LIMITED, INTERVAL)}
_TARGETS: dict[str, Callable[[str], AbstractContextManager[Target]]] = {BASELINE: _aiohttp, **_VARIANTS}
_DEFAULT_TARGETS = [BASELINE, PLAIN.name]


def main() -> int:
    """Runs the bench; 1 where `--check` is given and a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and requests: a first look, not a figure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value of every round as JSON")
    parser.add_argument("--requests", type=int, metavar="N", help="requests per round")
    parser.add_argument("--rounds", type=int, metavar="N")
    parser.add_argument(
        "--targets", default=",".join(_DEFAULT_TARGETS), help=f"comma-separated, of {', '.join(_TARGETS)}"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    options = parser.parse_args()
    names = options.targets.split(",")
    if unknown := set(names) - set(_TARGETS):
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(_TARGETS)}")
    plan = _QUICK if options.quick else _FULL
    plan = replace(plan, requests=options.requests or plan.requests, rounds=options.rounds or plan.rounds)

    console = Console(width=None if sys.stdout.isatty() else 130)
    raise_file_limit()
    start = time.monotonic()
    with ExitStack() as stack:
        _, ready = stack.enter_context(python_module("bench.upstream"))
        upstream = f"http://127.0.0.1:{ready['port']}"
        targets = [stack.enter_context(_TARGETS[name](upstream)) for name in names]
        with console.status("starting") as status:
            results = measure(targets, Target("direct", upstream, "unused"), plan, status.update)
    took_s = time.monotonic() - start
    show(console, results, names, f"Tollgate's bench: {plan.rounds} rounds, {took_s:.0f} s")
    misses = [miss for name in names if name != BASELINE for miss in missed(results, name)]
    for miss in misses:
        console.print(f"[red]missed[/] {miss}", highlight=False)
    if options.json:
        document = {"plan": asdict(plan), "seconds": took_s, "results": {k: v.values for k, v in results.items()}}
        options.json.write_text(json.dumps(document | {"missed": misses}, indent=2) + "\n")
    return 1 if options.check and misses else 0


if __name__ == "__main__":
    sys.exit(main())
