"""Which way imports run, what chassis may not know, and how modules are named and sized."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("auth_svc", "catalog_svc", "usage_svc")
EVERYTHING = {"protos", "pricing", "chassis", *SERVICES, "edge", "tollgate", "tests", "bench"}

# What the code of a package may import of ours. Whatever stands above it may not be seen from it.
MAY_IMPORT = {
    "protos": {"protos"},
    "pricing": {"pricing"},
    "chassis": {"chassis", "protos"},
    "auth_svc": {"auth_svc", "chassis", "protos"},
    "catalog_svc": {"catalog_svc", "chassis", "protos", "pricing"},  # refuses a price that could not be rated exactly
    "usage_svc": {"usage_svc", "chassis", "protos", "pricing"},
    "edge": {"edge", "chassis", "protos", "pricing"},
    "tollgate": EVERYTHING - {"tests", "bench"},
    "tests": EVERYTHING,
    "bench": EVERYTHING,
}

# Loading these costs the edge more than half a second of start-up, and it has no database.
NOT_IN_THE_EDGE = {"sqlmodel", "sqlalchemy", "alembic", "aiosqlite", "asyncpg"}

MAX_LINES = 400
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base", "data", "info"}

# Where a catch of everything is right: the gRPC interceptor, the HTTP middleware, the task supervisor.
MAY_CATCH_EVERYTHING = {"chassis/interceptors.py", "chassis/lifetime.py", "edge/app.py"}

DOMAIN_NOUNS = {
    "account", "balance", "billing", "catalog", "charge", "completion", "credential", "credit", "customer",
    "deployment", "grant", "ledger", "lease", "model", "nanousd", "operator", "price", "pricing", "prompt", "tenant",
    "tollgate_auth", "tollgate_catalog", "tollgate_usage", "upstream", "usd",
}  # fmt: skip
# Other people's identifiers: pydantic's, SQLModel's and gRPC's.
NOT_OUR_NOUNS = {
    "model_config", "model_fields", "model_validator", "SQLModel", "ServerCredentials",
    "dynamic_ssl_server_credentials",
}  # fmt: skip


@cache
def _modules() -> dict[str, Path]:
    """Every module that people wrote, by its dotted name."""
    found = {}
    for package in sorted(EVERYTHING):
        for path in sorted((ROOT / package).rglob("*.py")):
            if re.search(r"_pb2(_grpc)?\.py$", path.name):
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def _imports(module: str) -> frozenset[str]:
    """What a module imports wherever it does so, as dotted names; imports for type checkers alone do not count."""
    path = _modules()[module]
    found: set[str] = set()
    pending: list[ast.AST] = [_tree(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                origin = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            found.add(origin)
            found.update(f"{origin}.{alias.name}" for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))
    return frozenset(found)


def _reached_from(package: str) -> dict[str, str]:
    """Every module of ours that importing a package's modules loads, with the module that first asked for it."""
    reached: dict[str, str] = {}
    pending = [(module, module) for module in _modules() if module.split(".")[0] == package]
    while pending:
        module, asker = pending.pop()
        if module in reached:
            continue
        reached[module] = asker
        parts = module.split(".")
        wanted = {*_imports(module), *(".".join(parts[:count]) for count in range(1, len(parts)))}
        pending.extend((name, module) for name in wanted if name in _modules())
    return reached


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_imports_run_one_way(package: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module in _modules()
        if module.split(".")[0] == package
        for name in _imports(module)
        if name.split(".")[0] in EVERYTHING - MAY_IMPORT[package]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_edge_never_loads_a_database() -> None:
    wrong = [
        f"{module} (wanted by {asker}) imports {name}"
        for module, asker in _reached_from("edge").items()
        for name in _imports(module)
        if name.split(".")[0] in NOT_IN_THE_EDGE
    ]
    assert not wrong, "\n".join(wrong)


def test_no_domain_noun_appears_in_chassis() -> None:
    wrong = [
        f"{module}:{line}: {word!r} is a noun of {sorted(nouns)}"
        for module, path in _modules().items()
        if module.split(".")[0] == "chassis"
        for line, word in _words(_tree(path))
        if (nouns := DOMAIN_NOUNS & _parts(word))
    ]
    assert not wrong, "\n".join(wrong)


def _words(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every identifier and every string of the code; docstrings and comments may compare and explain."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.arg(arg=word) | ast.keyword(arg=str(word)):
                yield line, word
            case ast.FunctionDef(name=word) | ast.AsyncFunctionDef(name=word) | ast.ClassDef(name=word):
                yield line, word
            case ast.alias(name=word):
                yield line, word
            case ast.Constant(value=str(word)) if id(node) not in docstrings:
                yield line, word


def _parts(word: str) -> set[str]:
    """`leaseHolders_max` as {lease, holder, max}, and a sentence as its words; plurals are brought to one form."""
    if word in NOT_OUR_NOUNS:
        return set()
    split = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", word)
    lowered = {part.lower() for part in split}
    return lowered | {part.removesuffix("s") for part in lowered}


def test_the_word_test_splits_identifiers_and_sentences() -> None:
    assert _parts("LeaseHolders_max") >= {"lease", "holder", "max"}
    assert not DOMAIN_NOUNS & _parts("loadBalancingConfig")
    assert not DOMAIN_NOUNS & _parts("model_config")
    assert DOMAIN_NOUNS & _parts("the accounts of a reader") == {"account"}


def test_no_module_has_two_nouns() -> None:
    long = {
        f"{module} has {count} lines: split it at its second noun"
        for module, path in _modules().items()
        if not path.name.startswith("test_")
        if (count := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert not long, "\n".join(sorted(long))


def test_every_module_is_named_after_something() -> None:
    vague = [module for module in _modules() if VAGUE_NAMES & set(module.split("."))]
    assert not vague


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        module
        for module, path in _modules().items()
        if not ast.get_docstring(_tree(path)) and path.read_text().strip() and "migrations" not in module
    ]
    assert not silent


def test_everything_is_caught_in_three_places_only() -> None:
    wrong = []
    for module, path in _modules().items():
        name = path.relative_to(ROOT).as_posix()
        if module.split(".")[0] in ("tests", "bench") or name in MAY_CATCH_EVERYTHING:
            continue
        for node in ast.walk(_tree(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"BaseException"}
            reraised = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if caught & {"Exception", "BaseException"} and not reraised:
                wrong.append(f"{name}:{node.lineno}")
    assert not wrong, "\n".join(wrong)
