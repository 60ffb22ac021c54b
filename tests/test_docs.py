"""The Python blocks of the documentation pages run, in order, as a reader would paste them."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from lit_compress.cli import main
from lit_compress.datamodules import DigitsDataModule
from lit_compress.datamodules.images import PixelDataset

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
pytestmark = [
    # jsonargparse 4.49 and later, of calls that Lightning 2.6 makes
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # a resumed run has a folder of its own
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
]

#: A fenced block, with the comment on the line before it.
BLOCK = re.compile(
    r"^(?P<comment> *<!-- (?:no test: .+?|output) -->\n)?"
    r"(?P<indent> *)```(?P<language>python|sh|text)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
#: Pages and examples that convert to int8, fit several times, or start the command line.
SLOW = {
    "artifact.md",
    "compression_report.md",
    "configs.md",
    "doctor.md",
    "fit.md",
    "make_digits_int8.py",
    "own_cli.py",
    "plain_trainer.py",
    "post_training_quantization.md",
    "quantize.md",
    "ray_train.py",
    "report.md",
    "scan.md",
    "segmentation.py",
    "test.md",
    "timm_model.py",
    "torchrun.py",
    "tutorial.md",
}


def marked(paths: list[Path]) -> list[object]:
    return [
        pytest.param(path, id=path.name, marks=[pytest.mark.slow] if path.name in SLOW else [])
        for path in sorted(paths)
    ]


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Return comment, language and code of each block; whole files that it shows are read."""
    found = []
    for match in BLOCK.finditer(page.read_text("utf-8")):
        code = textwrap.dedent(match["code"])
        shown = re.fullmatch(r'--8<-- "(.+)"\n', code)
        code = (ROOT / shown[1]).read_text("utf-8") if shown else code
        found.append((match["comment"] or "", match["language"], code))
    return found


PAGES = [page for page in DOCS.rglob("*.md") if any(b[1] == "python" for b in blocks(page))]
VERBS = sorted((DOCS / "verbs").glob("*.md"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run in a copy of the examples, with a part of the digits where the test is not a slow one."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path / "examples")
    monkeypatch.syspath_prepend(str(tmp_path / "examples"))
    before = set(sys.modules)
    yield tmp_path / "examples"
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def few_digits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("slow"):
        return
    read = DigitsDataModule.read

    def part(self: DigitsDataModule, train: bool) -> PixelDataset:
        whole = read(self, train)
        return PixelDataset(whole.images[:200], whole.labels[:200])

    monkeypatch.setattr(DigitsDataModule, "read", part)


@pytest.mark.usefixtures("folder", "few_digits")
@pytest.mark.parametrize("page", marked(PAGES))
def test_the_python_of_a_page_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "page"}
    printed = ""
    for number, (comment, language, code) in enumerate(blocks(page)):
        if language == "python" and "no test" not in comment:
            exec(compile(code, f"{page.name}, block {number}", "exec"), names)  # noqa: S102
            printed = capsys.readouterr().out
        elif language == "text" and "output" in comment:
            assert code.strip() in printed.replace(" \n", "\n"), f"block {number} is not printed"


@pytest.mark.slow
@pytest.mark.parametrize("page", VERBS, ids=lambda page: page.name)
def test_the_commands_of_a_verb_run(page: Path, folder: Path) -> None:
    """Only commands on the digits: the others need data that are not here."""
    for comment, language, code in blocks(page):
        if language == "sh" and "no test" not in comment:
            for line in code.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] == "lit-compress":
                    assert returned(words[1:]) == 0, line


def returned(words: list[str]) -> object:
    """Return the exit code of a command; those that only print end the program."""
    try:
        return main(words)
    except SystemExit as stop:
        return stop.code


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_the_notebook_runs() -> None:
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text("utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] or not cell["source"] for cell in cells[1:]), "not executed"
    names: dict[str, object] = {"__name__": "notebook"}
    for number, cell in enumerate(cells):
        code = "".join(cell["source"])
        exec(compile(code, f"notebook, cell {number}", "exec"), names)  # noqa: S102


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("example", marked([*EXAMPLES.glob("*.py")]))
def test_an_example_runs(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if example.name == "timm_model.py" and find_spec("timm") is None:
        pytest.skip("timm is not installed")
    if example.name == "ray_train.py":
        pytest.skip("tests/on_ray runs it")
    if example.name == "digits_net.py":
        pytest.skip("the pages run it")
    monkeypatch.setattr(sys, "argv", [example.name])
    runpy.run_path(str(Path(os.getcwd()) / example.name), run_name="__main__")


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_a_page_names_what_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    configs = ROOT / "lit_compress" / "configs"
    for name in re.findall(r"--config[ =](\w+\.yaml)", text):
        assert (configs / name).is_file() or (EXAMPLES / name).is_file(), name
    for script in re.findall(r"\b((?:benchmarks|experiments|examples)/\w+\.(?:py|ipynb))", text):
        assert (ROOT / script).is_file(), script


def test_each_callback_has_a_page() -> None:
    from lit_compress import callbacks

    shown = "".join(page.read_text("utf-8") for page in (DOCS / "callbacks").glob("*.md"))
    for name in callbacks.__all__:
        assert f"::: lit_compress.callbacks.{name}\n" in shown


def test_the_reference_has_all_public_names() -> None:
    import lit_compress
    from lit_compress import callbacks, datamodules, modules, pruning

    shown = "".join(page.read_text("utf-8") for page in DOCS.rglob("*.md"))
    for package in (lit_compress, callbacks, pruning, modules, datamodules):
        for name in {*package.__all__} - {"__version__"}:
            home = lit_compress if name in lit_compress.__all__ else package
            assert f"::: {home.__name__}.{name}\n" in shown, f"{home.__name__}.{name}"
