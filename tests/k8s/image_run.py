"""The image run as the manifests say, with podman in place of a cluster: `python -m tests.k8s.image_run`.

Every workload of overlays/dev becomes a container (containers.py). They start all at once, as in a cluster. Then:

- a key that the bootstrap imported pays for a streamed answer, and the commands of k8s/README.md do what it says;
- the database goes away and nothing dies of it;
- a next version, with migrations of its own, waits for its Job while this one serves on, and takes over: an edge that
  is told to stop in the middle of a stream ends that stream first, leaves no usage behind, and its bill is right;
- that is undone, on the newer schema.

Needs the images that overlays/dev names: `make image CONTAINER=podman`, and PostgreSQL's.
"""

import json
import re
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.harness.eventually import eventually_sync
from tests.k8s import next_version
from tests.k8s.containers import NEXT, Containers, podman, podman_open, running
from tests.k8s.rendering import DEV, K8S, Document, container, named, of_version, pod, workloads

READY_S_MAX = 180.0
STOP_S_MAX = 60.0
MODEL = "local/smollm2-135m-instruct"
SERVICES = ("auth", "catalog", "usage")
NEXT_DEV = of_version("dev", "0.0.0-next")

_ASK = """
import json, sys, urllib.request
body = {"model": %(model)r, "stream": True, "max_tokens": %(tokens)d,
        "messages": [{"role": "user", "content": "What is a tollgate? Tell me a long story about one."}]}
request = urllib.request.Request("http://%(edge)s:8080/v1/chat/completions", json.dumps(body).encode(),
    {"Authorization": "Bearer " + %(key)r, "Content-Type": "application/json"})
with urllib.request.urlopen(request, timeout=300) as answer:
    for line in answer:
        sys.stdout.write(line.decode()); sys.stdout.flush()
"""
_HEALTH = """
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
with grpc.insecure_channel("%(host)s:9091") as channel:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="%(service)s"), timeout=5)
print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
"""
_STATUS = """
import urllib.request, urllib.error
try:
    print(urllib.request.urlopen("%(url)s", timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""


def main() -> int:
    """Runs it all; an assertion says what did not hold."""
    with running(DEV) as containers:
        run = _Run(containers)
        run.start()
        run.answer("edge", "a key that was imported pays for a streamed answer")
        run.commands_of_the_readme()
        run.outage_of_the_database()
        run.upgrade()
        run.undo()
        run.memory_is_within_what_is_requested()
    return 0


class _Run:
    """The steps, and what the demo account owes by now."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._owed_nanousd = 0

    def start(self) -> None:
        """All workloads have been started at once; they sort themselves out."""
        for job in ("migrate", "bootstrap"):
            _step(f"job {job} has completed", partial(self._containers.ended_well, job))
        self._edge_is_ready("edge")
        _step("the model is ready", lambda: self._status("http://local-model:8000/health") == "200")
        for service in SERVICES:
            self._probes(service, "SERVING")

    def answer(self, edge: str, what: str) -> None:
        """Asks an edge for a streamed answer, and looks at the bill."""
        printed, _ = self._ask(edge).communicate(timeout=READY_S_MAX)
        self._owed_nanousd += _charged_nanousd(printed)
        text = "".join(
            choice["delta"].get("content") or "" for each in _events(printed) for choice in each.get("choices", [])
        )
        print(f"ok  {what}: {len(_events(printed))} events, {text[:60]!r}", flush=True)
        self._is_paid()

    def commands_of_the_readme(self) -> None:
        """Runs each command that README.md gives for the toolbox, as it stands there."""
        catalog = named(DEV, "ConfigMap", "bootstrap-catalog")["data"]["catalog.yaml"]
        lines = re.findall(r"^kubectl -n tollgate exec (?:-i )?deployment/toolbox -- (tollgate .*)$", _readme(), re.M)
        assert len(lines) >= 6, lines
        for line in lines:
            command, _, file = line.partition(" < ")
            self._containers.in_toolbox(*shlex.split(command, comments=True), given=catalog if file else None)
            print(f"ok  {line}", flush=True)
        assert self._containers.tollgate("balance", "my-customer")["posted_usd"] == "100.00"

    def outage_of_the_database(self) -> None:
        """Nothing counts as dead, and nothing is restarted."""
        podman("stop", "--time", "10", "postgres")
        for service in SERVICES:
            for probe in ("live", ""):
                asked = partial(self._health, service, probe, "SERVING")
                _step(f"without a database {service} says SERVING to {probe or 'ready'}", asked, STOP_S_MAX)
        healthy = partial(self._status, "http://edge:8080/healthz")
        _step("and the edge 200 at /healthz", lambda: healthy() == "200", STOP_S_MAX)
        podman("start", "postgres")
        self._is_paid()
        self._nothing_was_restarted(*SERVICES, "edge")

    def upgrade(self) -> None:
        """New services before their migration, then the Job, then the edge, with a stream open at the old one."""
        image, next_image = (
            f"docker.io/library/{container(workloads(each)['edge'])['image']}" for each in (DEV, NEXT_DEV)
        )
        revisions = next_version.build(next_image, image, self._containers)
        found = workloads(NEXT_DEV)
        for service in SERVICES:
            self._containers.start(service, found[service], f"{service}{NEXT}", ready=False)
        for service in SERVICES:
            waiting = partial(self._health, f"{service}{NEXT}", "live", "SERVING")
            _step(f"the next {service} lives", waiting)
            self._probes(f"{service}{NEXT}", "NOT_SERVING")
        self.answer("edge", "while they wait for their schema, the others serve")
        self._containers.start("migrate", found["migrate"], f"migrate{NEXT}")
        _step("the next version's Job has migrated", partial(self._containers.ended_well, f"migrate{NEXT}"))
        log = podman("logs", f"migrate{NEXT}")
        assert all(revision in log for revision in revisions.values()), log
        for service in SERVICES:
            _step(f"the next {service} is ready", partial(self._health, f"{service}{NEXT}", "", "SERVING"))
            self._containers.publish(service, f"{service}{NEXT}")
        for service in SERVICES:
            self._stop(service, service)
        self.answer("edge", "the old edge on the new services")
        self._containers.start("edge", found["edge"], f"edge{NEXT}", ready=False)
        self._edge_is_ready(f"edge{NEXT}")
        self._replace_edge("edge")
        self.answer(f"edge{NEXT}", "all of the next version")
        self._nothing_was_restarted(*(f"{name}{NEXT}" for name in (*SERVICES, "edge")))

    def undo(self) -> None:
        """This version again, on the schema of the next."""
        found = workloads(DEV)
        for name in ("migrate", *SERVICES, "edge"):
            podman("rm", name)
            self._containers.start(name, found[name])
        _step("this version's Job leaves the newer schema alone", partial(self._containers.ended_well, "migrate"))
        for service in SERVICES:
            _step(f"{service} serves on it", partial(self._health, service, "", "SERVING"))
            self._stop(service, f"{service}{NEXT}")
        self._edge_is_ready("edge")
        self._replace_edge(f"edge{NEXT}")
        self.answer("edge", "undone")
        self._nothing_was_restarted(*SERVICES, "edge")

    def memory_is_within_what_is_requested(self) -> None:
        """Requests of memory are measured: here after all of this."""
        found = workloads(DEV)
        for name in ("edge", *SERVICES, "local-model", "postgres"):
            requested = int(container(found[name])["resources"]["requests"]["memory"].removesuffix("Mi")) * 2**20
            used = self._containers.memory_bytes(name)
            print(f"ok  {name} uses {used / 2**20:.0f} MiB of the {requested / 2**20:.0f} that it requests", flush=True)
            assert used <= requested, name

    def _replace_edge(self, name: str) -> None:
        """Told to stop in the middle of a stream, as Kubernetes tells it."""
        stream = self._ask(name)
        assert stream.stdout is not None
        head = "".join(stream.stdout.readline() for _ in range(4))
        podman("kill", "--signal", "TERM", name)
        assert not self._containers.ended_well(name)
        rest, _ = stream.communicate(timeout=READY_S_MAX)
        self._owed_nanousd += _charged_nanousd(head + rest)
        print(f"ok  {name} was told to stop, and ended its open stream first", flush=True)
        grace_s = pod(workloads(DEV)["edge"])["spec"]["terminationGracePeriodSeconds"]
        _step(f"{name} ended by itself, with status 0", partial(self._containers.ended_well, name), grace_s)
        left = [each for each in self._containers.files(name, "spool", "edge", "spool") if each.isdecimal()]
        assert left == [], f"{name} left sessions in its spool: {left}"
        print("ok  its spool is empty", flush=True)
        self._is_paid()

    def _stop(self, service: str, name: str) -> None:
        grace_s = pod(workloads(DEV)[service])["spec"]["terminationGracePeriodSeconds"]
        self._containers.withdraw(service, name)
        podman("stop", "--time", str(grace_s), name)
        assert self._containers.ended_well(name), self._containers.state(name)
        print(f"ok  {name} ended by itself, with status 0", flush=True)

    def _ask(self, edge: str) -> Any:
        key = self._containers.secret("demo-key", "secret")
        return podman_open(
            "exec", "toolbox", "python", "-c", _ASK % {"model": MODEL, "tokens": 40, "key": key, "edge": edge}
        )

    def _edge_is_ready(self, name: str) -> None:
        _step(f"{name} is ready", lambda: self._status(f"http://{name}:8080/readyz") == "200")

    def _status(self, url: str) -> str:
        return self._containers.python(_STATUS, url=url)

    def _health(self, host: str, service: str, wanted: str) -> bool:
        return self._containers.python(_HEALTH, host=host, service=service) == wanted

    def _probes(self, name: str, ready: str) -> None:
        """Started and alive ask one service, ready the other."""
        assert self._health(name, "live", "SERVING"), name
        assert self._health(name, "", ready), name
        print(f"ok  the probes of {name}: alive, {ready}", flush=True)

    def _is_paid(self) -> None:
        _step(f"{self._owed_nanousd} nano-USD are charged, to the last one", self._all_is_charged, STOP_S_MAX)

    def _all_is_charged(self) -> bool:
        try:
            charged = int(self._containers.tollgate("balance", "demo")["charged_nanousd"])
        except RuntimeError:  # the database is away
            return False
        return charged == self._owed_nanousd

    def _nothing_was_restarted(self, *names: str) -> None:
        restarted = {name: self._containers.state(name)["RestartCount"] for name in names}
        assert not any(restarted.values()), restarted
        print(f"ok  none was ever restarted: {', '.join(names)}", flush=True)


def _readme() -> str:
    return (K8S / "README.md").read_text()


def _step(what: str, check: Callable[[], object], timeout_s: float = READY_S_MAX) -> Any:
    start = time.monotonic()
    value = eventually_sync(check, timeout_s)
    print(f"ok  {what} ({time.monotonic() - start:.1f} s)", flush=True)
    return value


def _events(printed: str) -> list[Document]:
    return [json.loads(line[6:]) for line in printed.splitlines() if line.startswith("data: {")]


def _charged_nanousd(printed: str) -> int:
    """What the answer's usage costs by the catalog of overlays/dev: 100, 50 and 400 nano-USD a token."""
    assert "data: [DONE]" in printed, printed[-500:]
    usage = next(each["usage"] for each in reversed(_events(printed)) if each.get("usage"))
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return int((usage["prompt_tokens"] - cached) * 100 + cached * 50 + usage["completion_tokens"] * 400)


if __name__ == "__main__":
    sys.exit(main())
