"""The image run as the manifests say, with podman in place of a cluster: `python -m tests.k8s.image_run`.

Every workload of overlays/dev becomes a container with its image, arguments, variables, user, read-only root, dropped
capabilities and volumes, on a network where Services' names lead to it. They start all at once, as in a cluster. Then:
a key that the bootstrap imported pays for a streamed answer; the database goes away and nothing dies of it; an edge
that is told to stop in the middle of a stream ends that stream first, and its bill is right.

Needs the images that overlays/dev names (`make image CONTAINER=podman`, and PostgreSQL's) and kubectl. PODMAN may hold
the command with options of your own.
"""

import base64
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.harness.eventually import eventually_sync
from tests.k8s.rendering import DEV, Combination, Document, container, named, objects, pod, workloads

NETWORK = "tollgate-image-run"
READY_S_MAX = 180.0
STOP_S_MAX = 60.0
MODEL = "local/smollm2-135m-instruct"
_SHOWN_LOG_LINES = 15

_ASK = """
import json, sys, urllib.request
body = {"model": %(model)r, "stream": True, "max_tokens": %(tokens)d,
        "messages": [{"role": "user", "content": "What is a tollgate? Tell me a long story about one."}]}
request = urllib.request.Request("http://edge:8080/v1/chat/completions", json.dumps(body).encode(),
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
    print(urllib.request.urlopen("http://edge:8080%(path)s", timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""

_STATUS_OF_MODEL = 'import urllib.request; print(urllib.request.urlopen("http://local-model:8000/health").status)'


class Containers:
    """The containers of one run, by their workload's component."""

    def __init__(self, combination: Combination, folder: Path) -> None:
        self._combination, self._folder = combination, folder
        self._command = shlex.split(os.environ.get("PODMAN", "podman"))
        self.names: list[str] = []

    def podman(self, *arguments: str, check: bool = True, timeout_s: float = 120) -> str:
        """Runs podman; its standard output."""
        done = subprocess.run(
            [*self._command, *arguments], capture_output=True, text=True, check=False, timeout=timeout_s
        )
        if check and done.returncode:
            raise RuntimeError(f"podman {' '.join(arguments[:3])} ...: {done.stderr or done.stdout}")
        return done.stdout

    def start(self, component: str, workload: Document) -> None:
        """Starts a workload's container, detached."""
        spec, wanted = pod(workload)["spec"], container(workload)
        user = spec["securityContext"]
        options = [
            *("--name", component, "--network", NETWORK, "--network-alias", component, "--detach", "--pull=never"),
            *("--user", f"{user['runAsUser']}:{user['runAsGroup']}", "--read-only", "--read-only-tmpfs=false"),
            *("--cap-drop", "all", "--security-opt", "no-new-privileges"),
            *("--restart", "on-failure:50"),
            *(part for name, value in self._environment(wanted) for part in ("--env", f"{name}={value}")),
            *(part for mount in wanted.get("volumeMounts", []) for part in self._volume(component, workload, mount)),
        ]
        command = [str(part) for part in wanted.get("command", [])]
        if command:
            options += ["--entrypoint", json.dumps(command)]
        image = f"docker.io/library/{wanted['image']}"
        self.podman("run", *options, image, *map(str, wanted.get("args", [])))
        self.names.append(component)

    def _environment(self, wanted: Document) -> Iterator[tuple[str, str]]:
        for each in wanted.get("env", []):
            if "value" in each:
                yield each["name"], each["value"]
            else:
                reference = each["valueFrom"]["secretKeyRef"]
                yield each["name"], self.secret(reference["name"], reference["key"])

    def secret(self, name: str, key: str) -> str:
        """What a Secret of the manifests holds."""
        return base64.b64decode(named(self._combination, "Secret", name)["data"][key]).decode()

    def _volume(self, component: str, workload: Document, mount: Document) -> Sequence[str]:
        volumes = {each["name"]: each for each in pod(workload)["spec"].get("volumes", [])}
        source = volumes.get(mount["name"], {"emptyDir": {}})  # else a claim: as good as empty at the start
        path = mount["mountPath"]
        if "emptyDir" in source:
            return ("--volume", f"{NETWORK}-{component}-{mount['name']}:{path}:U")
        files = self._folder / component / mount["name"]
        files.mkdir(parents=True)
        if "configMap" in source:
            content = named(self._combination, "ConfigMap", source["configMap"]["name"])["data"]
        else:
            name = source["secret"]["secretName"]
            held = [each for each in objects(self._combination, "Secret") if each["metadata"]["name"] == name]
            assert held or source["secret"].get("optional"), f"nobody makes the Secret {name}"
            content = {key: self.secret(name, key) for each in held for key in each["data"]}
        for file_name, text in content.items():
            (files / file_name).write_text(text)
        return ("--volume", f"{files}:{path}:ro")

    def python(self, program: str, **values: Any) -> str:
        """What a program prints that runs in the toolbox; empty if it fails."""
        return self.podman("exec", "toolbox", "python", "-c", program % values, check=False).strip()

    def tollgate(self, *arguments: str) -> Document:
        """The operator's command, in the toolbox; its JSON."""
        document: Document = json.loads(self.podman("exec", "toolbox", "tollgate", *arguments, "--json"))
        return document

    def state(self, component: str) -> Document:
        """What podman knows of a container."""
        found = json.loads(self.podman("inspect", component))[0]
        return {**found["State"], "RestartCount": found["RestartCount"]}

    def ask(self, tokens: int) -> "subprocess.Popen[str]":
        """Asks for a streamed answer, from the toolbox."""
        program = _ASK % {"model": MODEL, "tokens": tokens, "key": self.secret("demo-key", "secret")}
        return subprocess.Popen(
            [*self._command, "exec", "toolbox", "python", "-c", program], stdout=subprocess.PIPE, text=True
        )


@contextmanager
def running(combination: Combination) -> Iterator[Containers]:
    """Everything of an overlay, from start to removal."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        containers = Containers(combination, Path(folder))
        stack.callback(_remove, containers, workloads(combination))
        _remove(containers, workloads(combination))
        containers.podman("network", "create", "--internal", NETWORK)
        try:
            for component, workload in workloads(combination).items():
                containers.start(component, workload)
            yield containers
        except (AssertionError, RuntimeError):
            for name in containers.names:
                log = subprocess.run(
                    [*shlex.split(os.environ.get("PODMAN", "podman")), "logs", name],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                tail = (log.stdout + log.stderr).splitlines()[-_SHOWN_LOG_LINES:]
                print(f"--- {name}", *tail, sep="\n", file=sys.stderr)
            raise


def _remove(containers: Containers, found: dict[str, Document]) -> None:
    containers.podman("rm", "--force", "--time", "0", "--ignore", *found)
    containers.podman("network", "rm", "--force", NETWORK, check=False)
    for name in containers.podman("volume", "ls", "--quiet").split():
        if name.startswith(f"{NETWORK}-"):
            containers.podman("volume", "rm", "--force", name)


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


def main() -> int:
    """Runs it all; an assertion says what did not hold."""
    with running(DEV) as containers:
        for job in ("migrate", "bootstrap"):
            _step(f"job {job} has completed", partial(_completed, containers, job))
        _step("the edge is ready", lambda: containers.python(_STATUS, path="/readyz") == "200")
        _step("the model is ready", lambda: containers.python(_STATUS_OF_MODEL) == "200")
        for service in ("auth", "catalog", "usage"):
            for name in ("live", ""):
                assert containers.python(_HEALTH, host=service, service=name) == "SERVING", (service, name)
        print("ok  the services' probes")

        answer, _ = containers.ask(40).communicate(timeout=READY_S_MAX)
        owed = _charged_nanousd(answer)
        text = "".join(
            choice["delta"].get("content") or "" for each in _events(answer) for choice in each.get("choices", [])
        )
        print(f"ok  a streamed answer of {len(_events(answer))} events: {text[:100]!r}")
        _step(f"it cost {owed} nano-USD, to the last one", lambda: _charged(containers) == owed)

        containers.podman("stop", "--time", "10", "postgres")
        # A probe is asked again too: names are looked up anew on this network whenever a container leaves it.
        for service in ("auth", "catalog", "usage"):
            alive = partial(containers.python, _HEALTH, host=service, service="live")
            _step(f"without a database {service} lives", partial(_says, alive, "SERVING"), STOP_S_MAX)
        _step("and so does the edge", lambda: containers.python(_STATUS, path="/healthz") == "200", STOP_S_MAX)
        containers.podman("start", "postgres")
        _step("its books are there when it is back", lambda: _charged(containers) == owed)

        stream = containers.ask(40)
        assert stream.stdout is not None
        head = "".join(stream.stdout.readline() for _ in range(4))
        containers.podman("kill", "--signal", "TERM", "edge")
        rest, _ = stream.communicate(timeout=READY_S_MAX)
        owed += _charged_nanousd(head + rest)
        print("ok  an edge that was told to stop ended its open stream first")
        _step("it ended by itself, with status 0", lambda: containers.state("edge")["ExitCode"] == 0, STOP_S_MAX)
        _step("and that stream is paid for", lambda: _charged(containers) == owed, STOP_S_MAX)
        restarted = {name: containers.state(name)["RestartCount"] for name in ("auth", "catalog", "usage")}
        assert not any(restarted.values()), restarted
        print("ok  no service was ever restarted")
    return 0


def _says(ask: Callable[[], str], wanted: str) -> bool:
    return ask() == wanted


def _completed(containers: Containers, job: str) -> bool:
    state = containers.state(job)
    return bool(state["Status"] == "exited" and state["ExitCode"] == 0)


def _charged(containers: Containers) -> int:
    """-1 while the database is away."""
    try:
        return int(containers.tollgate("balance", "demo")["charged_nanousd"])
    except RuntimeError:
        return -1


if __name__ == "__main__":
    sys.exit(main())
