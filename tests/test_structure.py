"""Layers, folders and sizes of the package, read from its source."""

from __future__ import annotations

import ast
import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parent.parent / "lit_compress"
#: The lowest layer first. A module imports from its own layer and from lower ones.
LAYERS = (
    "pruning quantization distillation export measure timing layer_times artifact packed report "
    "hub formats runtimes errors files attributes",
    "evaluation checkpoints progress",
    "callbacks sensitivity modules datamodules",
    "doctor benchmark search",
    "trainer cli cli_doctor cli_errors cli_lightning cli_monitor cli_pack cli_report __main__",
)
LEVELS = {part: level for level, parts in enumerate(LAYERS) for part in parts.split()}


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


TREES = {dotted(path): ast.parse(path.read_text("utf-8")) for path in ROOT.rglob("*.py")}


def imports(module: str) -> set[str]:
    """Return the modules that one imports, also inside functions."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}:{node.lineno}: imports are absolute here"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in TREES else str(node.module) for name in names}
    return found - {module}


# The names of lit_compress/__init__.py are imported on first use, so it is in no layer.
IMPORTS = {module: imports(module) for module in TREES if module != ROOT.name}


def level(module: str) -> int:
    return LEVELS[module.split(".")[1]]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function, without those of its docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_no_modules_import_each_other() -> None:
    inside = {name: found & IMPORTS.keys() for name, found in IMPORTS.items()}
    try:
        TopologicalSorter(inside).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " <- ".join(error.args[1]))


def test_no_module_imports_from_a_higher_layer() -> None:
    upward = [
        f"{module} imports {other}"
        for module, found in IMPORTS.items()
        for other in found & IMPORTS.keys()
        if level(other) > level(module)
    ]
    assert not upward


def test_the_lowest_layer_does_not_know_lightning() -> None:
    users = [
        f"{module} imports {other}"
        for module, found in IMPORTS.items()
        for other in found
        if not level(module) and "lightning" in other.split(".")[0]
    ]
    assert not users


def test_folders_and_files_and_functions_are_small() -> None:
    files = [path for path in ROOT.rglob("*.py") if path.name != "__init__.py"]
    folders = Counter(path.parent for path in files)
    assert not {str(folder): count for folder, count in folders.items() if count > 12}
    assert median(len(path.read_text("utf-8").splitlines()) for path in files) <= 150
    lines = {
        f"{module}:{node.lineno} {node.name}": length(node)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert not {name: count for name, count in lines.items() if count > 60}


def test_every_slow_test_is_in_a_part_of_make_nightly() -> None:
    """The page of the report was never opened in a browser: no part had its folder."""
    tests, makefile = Path(__file__).parent, (ROOT.parent / "Makefile").read_text("utf-8")
    parts = " ".join(re.findall(r"^SLOW_\w+ := (.*)$", makefile, re.MULTILINE))
    parts += " " + " ".join(re.findall(r"-m slow (tests/\w+)", makefile))
    places = [(ROOT.parent / part).resolve() for part in parts.split()]
    assert all(place.exists() for place in places)
    files = [path for path in tests.rglob("test_*.py") if path != Path(__file__)]
    slow = [path for path in files if "mark.slow" in path.read_text("utf-8")]
    assert slow
    assert not [str(p) for p in slow if not any(p.is_relative_to(place) for place in places)]


def test_every_path_of_the_makefile_exists() -> None:
    """The fast tests collected nothing: a test file had become a folder."""
    makefile = (ROOT.parent / "Makefile").read_text("utf-8")
    paths = set(
        re.findall(r"(?<![\w/.-])(?:tests|docs|\.ci|benchmarks|experiments)/[\w/.-]*\w", makefile)
    )
    assert len(paths) > 20
    assert not [path for path in paths if not (ROOT.parent / path).exists()]
