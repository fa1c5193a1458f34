"""The gates that every change passes: linters, types, and the one way that data flows."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dfbuild"

# Each layer may import those before it. Packages on one line don't know each other.
LAYERS = (
    ("model",),
    ("errors",),
    ("deadline", "filter"),
    ("workspace", "runtime", "process", "toml"),
    ("sandbox",),
    ("releases",),
    ("config",),
    ("image", "source"),
    ("build",),
    ("guest", "wire"),
    ("console",),
    ("session",),
    ("shell",),
    ("suites",),
    ("results",),
    ("report",),
    ("matrix",),
    ("cli",),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def imports(path: Path) -> Iterator[str]:
    """The packages of dfbuild that a module imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dfbuild."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == "dfbuild":
            yield from (name.name for name in node.names if name.name in RANK)
        elif isinstance(node, ast.Import):
            yield from (n.name.split(".")[1] for n in node.names if n.name.startswith("dfbuild."))


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p.name not in ("__main__.py",) and p.parent != PACKAGE) + [
        PACKAGE / f"{name}.py" for layer in LAYERS for name in layer if (PACKAGE / f"{name}.py").exists()
    ]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_downstream_is_imported_upstream(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    wrong = [name for name in imports(path) if name != own and RANK[name] >= RANK[own]]
    assert not wrong, f"{own} must not know {wrong}"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check", "."], id="ruff"),
        pytest.param(["ruff", "format", "--check", "."], id="format"),
        pytest.param(["mypy"], id="mypy"),
    ],
)
def test_linters(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_test_modules_have_names_of_their_own() -> None:
    """pytest takes two of one name for the same module, and collects nothing at all."""
    found = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in found.items() if count > 1] == []
