"""The house as ARCHITECTURE.md describes it: which wings there are, and who may import whom."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WINGS = re.findall(r"^\| `(\w+)` \|", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.M)
PACKAGES = sorted(path.parent for path in (ROOT / "local").glob("*/**/__init__.py"))


def imported(path: Path) -> set[str]:
    """Modules that a file imports, wherever in it; those that serve types alone excepted."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        waiting += ast.iter_child_nodes(node)
    return names


def test_every_folder_is_a_wing():
    assert sorted(WINGS) == sorted(
        path.name for path in (ROOT / "local").iterdir() if (path / "__init__.py").is_file()
    )
    assert [path.name for path in (ROOT / "local").glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_imports_what_stands_above_it(wing):
    may = {"local", *(f"local.{name}" for name in WINGS[: WINGS.index(wing) + 1])}
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "local" / wing).rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in ("recipes", "bin", "tests")
        or (name.split(".")[0] == "local" and ".".join(name.split(".")[:2]) not in may)
    ]
    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_wing_tells_of_exist(package):
    text = (package / "__init__.py").read_text(encoding="utf-8")
    words = ast.get_docstring(ast.parse(text)) or ""
    for line in re.findall(r"^- (.*(?:\n  .*)*)", words, re.M):
        for name in re.findall(r"(?:^|[;,] )\s*`([a-z_0-9]+)/?`(?=[:,])", line):
            assert (package / name).is_dir() or (package / f"{name}.py").is_file(), name
