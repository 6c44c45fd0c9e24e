"""Workloads of the manifests as containers, with podman in place of a cluster.

Each has its workload's image, arguments, variables, user, read-only root, dropped capabilities and volumes, on a
network without a way out. Services' names are in a file of hosts that all of them read and this side keeps, as a
cluster keeps its DNS; podman's own answers late, or not at all, while containers come and go.

Needs the images that the manifests name, and kubectl to render them. PODMAN may hold the command with options of your
own.
"""

import base64
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.k8s.rendering import Combination, Document, container, named, objects, pod, workloads

NETWORK = "tollgate-image-run"
_SUBNET = "10.213.7"
# What a second version of a workload is called beside the first.
NEXT = "-next"
_SHOWN_LOG_LINES = 15
_COMMAND = shlex.split(os.environ.get("PODMAN", "podman"))


def podman(*arguments: str, check: bool = True, timeout_s: float = 120, given: str | None = None) -> str:
    """Runs podman; its standard output.

    Raises:
        RuntimeError: it failed; says how.
    """
    done = subprocess.run(
        [*_COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=timeout_s, input=given
    )
    if check and done.returncode:
        raise RuntimeError(f"podman {' '.join(arguments[:4])} ...: {done.stderr or done.stdout}")
    return done.stdout


def podman_open(*arguments: str) -> "subprocess.Popen[str]":
    """Starts podman, to read what it prints while it does."""
    return subprocess.Popen([*_COMMAND, *arguments], stdout=subprocess.PIPE, text=True)


class Containers:
    """The containers of one run, by name: the component of their workload, with `NEXT` for its second version."""

    def __init__(self, combination: Combination, folder: Path) -> None:
        self._combination, self._folder = combination, folder
        self._addresses: dict[str, str] = {}
        self._behind: dict[str, set[str]] = {}  # a Service's name: the containers that it leads to
        self._hosts = folder / "hosts"
        self._write_hosts()

    @property
    def names(self) -> list[str]:
        """Every container that was started."""
        return list(self._addresses)

    def publish(self, component: str, name: str) -> None:
        """The Service of a component leads to this container, too: it is ready."""
        self._behind.setdefault(component, set()).add(name)
        self._write_hosts()

    def withdraw(self, component: str, name: str) -> None:
        """It does no longer: the container is about to end."""
        self._behind[component].discard(name)
        self._write_hosts()

    def _write_hosts(self) -> None:
        entries = {(self._addresses[name], service) for service, names in self._behind.items() for name in names}
        # The second version of a pod is asked by its own name, too.
        entries |= {(address, name) for name, address in self._addresses.items() if name.endswith(NEXT)}
        # In place: this very file is what they have mounted.
        self._hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{host} {name}\n" for host, name in sorted(entries)))
        self._hosts.chmod(0o644)

    def start(self, component: str, workload: Document, name: str = "", *, ready: bool = True) -> None:
        """Starts a workload's container, detached; its Service leads to it from the start, or once it is published."""
        spec, wanted, name = pod(workload)["spec"], container(workload), name or component
        user = spec["securityContext"]
        self._addresses.setdefault(name, f"{_SUBNET}.{10 + len(self._addresses)}")
        if ready:
            self._behind.setdefault(component, set()).add(name)
        self._write_hosts()
        options = [
            *("--name", name, "--network", NETWORK, "--ip", self._addresses[name], "--detach", "--pull=never"),
            *("--no-hosts", "--dns", "127.0.0.1", "--volume", f"{self._hosts}:/etc/hosts:ro"),
            *("--user", f"{user['runAsUser']}:{user['runAsGroup']}", "--read-only", "--read-only-tmpfs=false"),
            *("--cap-drop", "all", "--security-opt", "no-new-privileges"),
            *("--restart", "on-failure:50"),
            *(part for key, value in self._environment(wanted) for part in ("--env", f"{key}={value}")),
            *(part for mount in wanted.get("volumeMounts", []) for part in self._volume(name, workload, mount)),
        ]
        command = [str(part) for part in wanted.get("command", [])]
        if command:
            options += ["--entrypoint", json.dumps(command)]
        image = f"docker.io/library/{wanted['image']}"
        podman("run", *options, image, *map(str, wanted.get("args", [])))

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

    def _volume(self, name: str, workload: Document, mount: Document) -> Sequence[str]:
        volumes = {each["name"]: each for each in pod(workload)["spec"].get("volumes", [])}
        source = volumes.get(mount["name"], {"emptyDir": {}})  # else a claim: as good as empty at the start
        path = mount["mountPath"]
        if "emptyDir" in source:
            return ("--volume", f"{_volume_name(name, mount['name'])}:{path}:U")
        files = self._folder / name / mount["name"]
        files.mkdir(parents=True, exist_ok=True)
        if "configMap" in source:
            content = named(self._combination, "ConfigMap", source["configMap"]["name"])["data"]
        else:
            wanted = source["secret"]["secretName"]
            held = [each for each in objects(self._combination, "Secret") if each["metadata"]["name"] == wanted]
            assert held or source["secret"].get("optional"), f"nobody makes the Secret {wanted}"
            content = {key: self.secret(wanted, key) for each in held for key in each["data"]}
        for file_name, text in content.items():
            (files / file_name).write_text(text)
        return ("--volume", f"{files}:{path}:ro")

    def in_toolbox(self, *command: str, given: str | None = None) -> str:
        """What a command prints in the pod where operators work.

        Raises:
            RuntimeError: it failed.
        """
        return podman("exec", *(("--interactive",) if given else ()), "toolbox", *command, given=given)

    def python(self, program: str, **values: Any) -> str:
        """What a program prints that runs there; empty if it fails."""
        return podman("exec", "toolbox", "python", "-c", program % values, check=False).strip()

    def tollgate(self, *arguments: str) -> Document:
        """The operator's command; its JSON."""
        document: Document = json.loads(self.in_toolbox("tollgate", *arguments, "--json"))
        return document

    def state(self, name: str) -> Document:
        """What podman knows of a container."""
        found = json.loads(podman("inspect", name))[0]
        return {**found["State"], "RestartCount": found["RestartCount"]}

    def ended_well(self, name: str) -> bool:
        """Whether a container ended by itself, with status 0."""
        state = self.state(name)
        return bool(state["Status"] == "exited" and state["ExitCode"] == 0)

    def memory_bytes(self, name: str) -> int:
        """What a running container uses."""
        shown = json.loads(podman("stats", "--no-stream", "--format", "json", name))[0]["mem_usage"]
        number, unit = shown.split("/")[0].strip()[:-2], shown.split("/")[0].strip()[-2:]
        return int(float(number) * {"kB": 1e3, "MB": 1e6, "GB": 1e9}[unit])

    def files(self, name: str, mount: str, *below: str) -> list[str]:
        """The names within a folder of a container's volume, also when it has ended."""
        root = Path(podman("volume", "inspect", "--format", "{{.Mountpoint}}", _volume_name(name, mount)).strip())
        return sorted(each.name for each in root.joinpath(*below).iterdir())


@contextmanager
def running(combination: Combination) -> Iterator[Containers]:
    """Everything of an overlay, from start to removal."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        containers = Containers(combination, Path(folder))
        stack.callback(_remove, workloads(combination))
        _remove(workloads(combination))
        podman("network", "create", "--internal", "--disable-dns", "--subnet", f"{_SUBNET}.0/24", NETWORK)
        try:
            for component, workload in workloads(combination).items():
                containers.start(component, workload)
            yield containers
        except (AssertionError, RuntimeError, subprocess.TimeoutExpired):
            for name in containers.names:
                log = subprocess.run([*_COMMAND, "logs", name], capture_output=True, text=True, check=False)
                tail = (log.stdout + log.stderr).splitlines()[-_SHOWN_LOG_LINES:]
                print(f"--- {name}", *tail, sep="\n", file=sys.stderr)
            raise


def _volume_name(name: str, mount: str) -> str:
    return f"{NETWORK}-{name}-{mount}"


def _remove(found: dict[str, Document]) -> None:
    podman("rm", "--force", "--time", "0", "--ignore", *found, *(f"{name}{NEXT}" for name in found))
    podman("network", "rm", "--force", NETWORK, check=False)
    for name in podman("volume", "ls", "--quiet").split():
        if name.startswith(f"{NETWORK}-"):
            podman("volume", "rm", "--force", name)
