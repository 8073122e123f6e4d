"""Which room may import what: protocols and data know no I/O, and imports point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kevynode

PACKAGE = Path(kevynode.__file__).parent

OUTSIDE_WORLD = {
    "asyncio",
    "multiprocessing",
    "os",
    "random",
    "secrets",
    "select",
    "socket",
    "threading",
    "time",
    "trio",
}

#: The modules of ``serve`` that move bytes or live on Trio's clock. Everything else there takes what it needs.
DRIVERS = {"hub", "hub_connection", "hub_held", "hub_rounds", "stream_driver", "listener", "limits"}
#: The same in ``replicate``.
REPLICATION_DRIVERS = {"sender", "service", "follower", "upstream", "client"} | {
    "mesh_follower",
    "mesh_service",
    "mesh_upstream",
}
#: The same in ``scope``.
SCOPE_DRIVERS = {"peers", "peer_link", "coordinator", "keeper", "move_jobs", "move_link"} | {
    "move_driver",
    "move_links",
    "move_state",
    "tails",
}
#: The modules of ``scope`` that are a library of their own.
SCOPE_LIBRARY = {"__init__", "migration", "prefixes", "routing", "scope", "table", "value"}
#: The same in the rooms of files and their formats: the disk is handed in, but somebody has to wait for it.
FILE_DRIVERS: dict[str, set[str]] = {"persist": {"placing", "service"}, "rdb": set(), "transfer": set()}


def modules(room: str) -> Iterator[Path]:
    place = PACKAGE / room
    yield from [place] if place.suffix else sorted(place.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Absolute dotted names of everything a module imports, except for the eyes of the type checker alone."""
    package = ("kevynode", *path.relative_to(PACKAGE).parts[:-1])
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {name} | {f"{name}.{alias.name}" for alias in node.names}
    return found


def offences(paths: Iterator[Path], forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in paths
        for name in sorted(imported(path))
        if any(name == other or name.startswith(other + ".") for other in forbidden)
    ]


@pytest.mark.parametrize("room", ["resp.py", "reply.py", "errors.py", "doubles.py", "store"])
def test_data_and_protocols_know_no_outside_world(room: str) -> None:
    assert offences(modules(room), OUTSIDE_WORLD) == []


def test_sessions_and_commands_know_no_outside_world() -> None:
    paths = (path for path in modules("serve") if path.stem not in DRIVERS)
    assert offences(paths, OUTSIDE_WORLD) == []


def test_the_protocols_of_replication_know_no_outside_world() -> None:
    paths = (path for path in modules("replicate") if path.stem not in REPLICATION_DRIVERS)
    assert offences(paths, OUTSIDE_WORLD) == []


@pytest.mark.parametrize(("room", "drivers"), FILE_DRIVERS.items())
def test_files_and_formats_know_no_outside_world(room: str, drivers: set[str]) -> None:
    paths = (path for path in modules(room) if path.stem not in drivers)
    assert offences(paths, OUTSIDE_WORLD) == []


def test_who_owns_what_knows_no_outside_world() -> None:
    paths = (path for path in modules("scope") if path.stem not in SCOPE_DRIVERS)
    assert offences(paths, OUTSIDE_WORLD) == []


def test_scopes_need_nothing_but_the_standard_library() -> None:
    used = {name for path in modules("scope") if path.stem in SCOPE_LIBRARY for name in imported(path)}
    assert {name for name in used if name.partition(".")[0] not in sys.stdlib_module_names | {"kevynode"}} == set()
    library = {f"kevynode.scope.{stem}" for stem in SCOPE_LIBRARY}
    within = {name for name in used if name.startswith("kevynode") and name != "kevynode.scope"}
    assert {name for name in within if name not in library and name.rpartition(".")[0] not in library} == set()


def test_importing_scopes_brings_nothing_else_along() -> None:
    program = "import sys, kevynode.scope; print(*(name for name in sys.modules if name.startswith('kevynode')))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    expected = {"kevynode", *(f"kevynode.scope.{stem}" for stem in SCOPE_LIBRARY - {"__init__"}), "kevynode.scope"}
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("store", {"kevynode.serve", "kevynode.replicate", "kevynode.scope", "kevynode.node", "kevynode.config"}),
        ("serve", {"kevynode.replicate", "kevynode.scope", "kevynode.node", "kevynode.cli"}),
        ("replicate", {"kevynode.serve", "kevynode.scope", "kevynode.node", "kevynode.config", "kevynode.cli"}),
        ("persist", {"kevynode.serve", "kevynode.scope", "kevynode.node", "kevynode.config", "kevynode.cli"}),
        ("rdb", {"kevynode.serve", "kevynode.scope", "kevynode.node", "kevynode.config", "kevynode.cli"}),
        ("transfer", {"kevynode.serve", "kevynode.scope", "kevynode.node", "kevynode.config", "kevynode.cli"}),
        (
            "scope",
            {"kevynode.serve", "kevynode.node", "kevynode.config", "kevynode.cli", "kevynode.persist", "kevynode.rdb"},
        ),
        ("resp.py", {"kevynode"}),
    ],
)
def test_imports_point_one_way(room: str, forbidden: set[str]) -> None:
    assert offences(modules(room), forbidden) == []


@pytest.mark.parametrize(
    "module",
    [
        "kevynode",
        "kevynode.store",
        "kevynode.scope",
        "kevynode.config",
        "kevynode.replicate.replication",
        "kevynode.replicate.replica",
    ],
)
def test_importing_it_does_not_bring_trio_along(module: str) -> None:
    program = f"import sys, {module}; sys.exit('trio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
