"""Imports point one way only (docs/architecture.md), and each kind of knowledge has one home."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SERVER = ROOT / "artstore_grpc"
CLIENT = ROOT / "clients/python/artstore"

LAYERS = (
    "errors files model addresses forms deadlines counters spans",
    "records",
    "settings call policy",
    "audiences credentials descriptions listeners ledger lookups places secrets subjects vault",
    "filters key_policy public_keys schedules",
    "rotations",
    "store ephemeral sinks telemetry fields pages trust key_material key_encryption checkpoints",
    "key_changes",
    "replays usage census failures replica keys root_key key_files kms verification",
    "rotation_policies refusals",
    "deliveries certificates denials",
    "attempts jobs changes revocations signing_keys notary exports",
    "assertions client_certificates",
    "authentication",
    "tokens rotation audit archives",
    "accounts rotation_steps",
    "scheduled_rotation rotation_plan",
    "installation pipeline imports",
    "watches traced",
    "instruments rpc",
    "gateway",
    "parts",
    "doors presence background startup",
    "app rekey doctor",
    "workers",
    "cli",
)
"""Subjects, the lowest first. A module imports from lower layers, and from its own package; nothing else."""

HOMES = {
    "sqlalchemy": {"store"},
    "alembic": {"store"},
    "asyncpg": {"store"},
    "aiosqlite": {"store"},
    "sqlite3": {"store"},
    "redis": {"ephemeral"},
    "bcrypt": {"secrets"},
    "starlette": {"gateway"},
    "uvicorn": {"gateway"},
    "click": {"cli"},
    "rich": {"cli"},
    "grpc": {"rpc", "gateway", "cli", "kms"},
    "grpc_health": {"rpc", "gateway", "cli"},
    "grpc_reflection": {"rpc"},
    "google": {"call", "kms", "pipeline", "traced", "rpc", "gateway", "cli"},
    "artstore": {"rpc", "gateway", "cli"},
    "prometheus_client": {"telemetry", "workers", "cli"},
    "opentelemetry": {"telemetry"},
    "http": {"gateway"},
    "httpx": {"sinks"},
}
"""Which subjects may know a library; a protobuf, SQL or HTTP type anywhere else is a rule in the wrong place."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the server by its dotted name, `artstore_grpc.` left out."""
    return {
        ".".join(path.relative_to(SERVER).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(SERVER.rglob("*.py"))
        if path != SERVER / "__init__.py"
    }


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imported(path: Path) -> Iterator[str]:
    """The full dotted names that a file imports, wherever in the file it does."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(name: str) -> set[str]:
    """The modules of the server that a module imports."""
    found = set()
    for target in imported(modules()[name]):
        head, _, rest = target.partition(".")
        if head != "artstore_grpc" or not rest:
            continue
        found.add(rest if rest in modules() else rest.rpartition(".")[0])
    return found & modules().keys()


def subject(name: str) -> str:
    return name.partition(".")[0]


def layer(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if subject(name) in names.split())


@pytest.mark.parametrize("name", modules())
def test_every_module_has_a_layer(name: str) -> None:
    """A new subject gets its place in the table before it gets importers."""
    assert any(subject(name) in names.split() for names in LAYERS), f"{name} has no row in LAYERS"


@pytest.mark.parametrize("name", modules())
def test_imports_point_down(name: str) -> None:
    """A module imports only from lower layers and from its own package."""
    wrong = {other for other in own_imports(name) if subject(other) != subject(name) and layer(other) >= layer(name)}
    assert not wrong, f"{name} must not import {', '.join(sorted(wrong))}"


def test_no_cycles() -> None:
    """Within a package too, no two modules need each other."""
    graph = {name: own_imports(name) - {name} for name in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle: {' → '.join(error.args[1])}")


@pytest.mark.parametrize("name", modules())
def test_libraries_stay_at_home(name: str) -> None:
    """Each library is known to the subjects that HOMES gives it to, and to no other."""
    for target in imported(modules()[name]):
        homes = HOMES.get(target.partition(".")[0])
        assert homes is None or subject(name) in homes, f"{name} must not import {target}"


def test_the_client_does_not_know_the_server() -> None:
    """The client is a distribution of its own."""
    for path in CLIENT.rglob("*.py"):
        assert not [target for target in imported(path) if target.startswith("artstore_grpc")], path


def reads_environment(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        and node.attr in {"environ", "environb", "getenv", "getenvb", "putenv"}
        for node in ast.walk(tree(path))
    ) or any(target in {"os.environ", "os.getenv"} for target in imported(path))


def test_only_the_command_line_reads_the_environment() -> None:
    """Settings come in as one object, so that two services in one process can differ."""
    readers = {name for name, path in modules().items() if reads_environment(path)}
    assert readers == {"cli.environment"}
    assert not [path for path in CLIENT.rglob("*.py") if reads_environment(path)]


def assigned(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """The names that a module assigns at its top level, and what it assigns."""
    for node in module.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            yield node.target.id, node.value


@pytest.mark.parametrize("name", modules())
def test_no_module_level_state(name: str) -> None:
    """A module holds constants and types: no `global`, no instance that lives as long as the process."""
    module = tree(modules()[name])
    assert not [node for node in ast.walk(module) if isinstance(node, ast.Global)], f"{name} uses global"
    if name == "store.tables" or name.startswith(("store.migrations", "cli.")):
        return  # SQLAlchemy's tables, Alembic's variables and click's commands are declarations, lower-case by custom
    instances = [variable for variable, value in assigned(module) if isinstance(value, ast.Call) and variable.islower()]
    assert not instances, f"{name} makes {', '.join(instances)} at import"
