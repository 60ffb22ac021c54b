"""Run the fast tests with each Python and each torch that setup.cfg allows, one after the other.

    python tests/versions/run.py                      # writes docs/versions.md
    python tests/versions/run.py --python 3.12 --torch newest

Each pair gets an environment of its own, which is deleted afterwards (6 GB). An interpreter that
this machine does not have is said to be missing. Style and types are checked for every Python,
also for those that are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results.json")
PAGE = ROOT / "docs" / "versions.md"
#: Comments of the page between which the table stands.
START, END = "<!-- versions: table -->", "<!-- end of versions -->"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
#: What pip is told of torch; ``floor`` takes the oldest version of each dependency.
TORCHES = {
    "floor": (ROOT / ".ci" / "minimum.txt").read_text("utf-8"),
    "2.11": "torch==2.11.*\ntorchvision==0.26.*\n",
    "2.12": "torch==2.12.*\ntorchvision==0.27.*\n",
    "2.13": "torch==2.13.*\ntorchvision==0.28.*\n",
    "newest": "",
}
#: The systems whose types are checked, by mypy's names.
SYSTEMS = ("linux", "darwin", "win32")
#: Says which versions an environment has.
VERSIONS = """
import importlib.metadata as m, json, platform
names = ("torch", "lightning", "onnxruntime", "torchao", "numpy")
print(json.dumps({"python": platform.python_version()} | {n: m.version(n) for n in names}))
"""


@dataclass(frozen=True)
class Row:
    """One pair of a Python and a torch.

    Attributes:
        python: The Python, such as ``3.12``.
        torch: A key of TORCHES.
        versions: By distribution, the version that was installed.
        outcome: The last line of pytest, or why nothing ran.
        style: Whether ruff and mypy had nothing to say for this Python.
    """

    python: str
    torch: str
    versions: dict[str, str]
    outcome: str
    style: bool


def interpreter(python: str) -> str | None:
    """Return a Python of a version: this one, one on the path, or one of pyenv's."""
    if python == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [str(path / "bin" / "python") for path in sorted(versions.glob(f"{python}.*"))]
    return next(filter(None, [*found, shutil.which(f"python{python}")]), None)


def checked(python: str) -> bool:
    """Return whether ruff and mypy have nothing to say about the package for a Python."""
    version = python.replace(".", "")
    commands: list[list[str]] = [
        # UP asks for the newest syntax, which older Pythons lack
        ["ruff", "check", "--ignore", "UP", "--target-version", f"py{version}", "lit_compress"],
        *(["mypy", "--python-version", python, "--platform", p, "lit_compress"] for p in SYSTEMS),
    ]
    tools = Path(sys.executable).parent
    return all(
        subprocess.run([tools / name, *rest], cwd=ROOT, check=False).returncode == 0
        for name, *rest in commands
    )


def tested(executable: str, torch: str) -> tuple[dict[str, str], str]:
    """Install, and run the fast tests.

    Returns:
        The versions that were installed, and the last line of pytest or why it did not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        constraint, environment = Path(folder) / "constraint.txt", Path(folder) / "venv"
        constraint.write_text(TORCHES[torch], encoding="utf-8")
        names = (f"PYTHON={executable}", f"MINIMUM={environment}", f"CONSTRAINT={constraint}")
        make = subprocess.run(
            [str(shutil.which("make")), "minimum", *names],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        print(make.stdout, make.stderr, file=sys.stderr)
        outcome = re.findall(r"^=+ (.*(?:passed|failed|error).*) =+$", make.stdout, re.MULTILINE)
        if not outcome:
            reasons = [line for line in make.stderr.splitlines() if line.startswith("ERROR:")]
            return {}, (reasons or ["it could not be installed"])[-1].removeprefix("ERROR: ")
        text = subprocess.check_output([environment / "bin" / "python", "-c", VERSIONS], text=True)
        return json.loads(text), re.sub(r" in [\d.]+s.*", "", outcome[-1])


def run(python: str, torch: str) -> Row:
    """Return what came of a pair."""
    executable = interpreter(python)
    if executable is None:
        return Row(python, torch, {}, "not run: this machine has no such Python", checked(python))
    return Row(python, torch, *tested(executable, torch), checked(python))


def table(rows: Iterable[Row]) -> str:
    """Return the rows in Markdown."""
    names = ("torch", "lightning", "onnxruntime", "torchao", "numpy")
    lines = [f"| Python | {' | '.join(names)} | fast tests | ruff, mypy |", "| --- " * 8 + "|"]
    for row in sorted(rows, key=lambda r: (int(r.python[2:]), list(TORCHES).index(r.torch))):
        versions = [row.versions.get(name, f"({row.torch})" * (name == "torch")) for name in names]
        style = "clean" if row.style else "findings"
        python = row.versions.get("python", row.python)
        lines.append(f"| {python} | {' | '.join(versions)} | {row.outcome} | {style} |")
    return "\n".join(lines)


def read_rows() -> list[Row]:
    """Return the rows of earlier calls."""
    if not RESULTS.is_file():
        return []
    return [Row(**row) for row in json.loads(RESULTS.read_text("utf-8"))]


def write(rows: Sequence[Row]) -> None:
    """Write the rows, and the table of the page."""
    RESULTS.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n", encoding="utf-8")
    before, rest = PAGE.read_text("utf-8").split(START)
    after = rest.split(END)[1]
    text = f"{before}{START}\n{table(rows)}\n{END}{after}"
    PAGE.write_text(text, encoding="utf-8")


def main() -> int:
    """Run the pairs; 1 if a test failed or ruff or mypy found something."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--python", nargs="+", default=PYTHONS, choices=PYTHONS)
    options.add_argument("--torch", nargs="+", default=list(TORCHES), choices=list(TORCHES))
    given = options.parse_args()
    rows = {(row.python, row.torch): row for row in read_rows()}
    for pair in [(python, torch) for python in given.python for torch in given.torch]:
        rows[pair] = run(*pair)
        write(list(rows.values()))
        print(rows[pair])
    bad = [row for row in rows.values() if not row.style or "failed" in row.outcome]
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
