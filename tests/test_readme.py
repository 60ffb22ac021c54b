"""The README's Python runs as it stands, on a module that is not ours."""

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import ForeignModule, loader, stripes
from PIL import Image

import lit_compress

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


class Model(ForeignModule):
    def log(self, name: str, *args: object, **options: object) -> None:  # type: ignore[override]
        super().log(name.replace("my_", "val_"), *args, **options)  # type: ignore[arg-type]


def test_the_snippet_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    snippet, outlook, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {"model": Model(), "train_loader": loader(64), "val_loader": loader(32, 1)}
    names["images"] = stripes(2, 2).tensors[0].numpy()  # type: ignore[assignment]
    exec(compile(snippet, "README.md", "exec"), names)  # noqa: S102 - our own text
    printed = capsys.readouterr().out
    assert re.search(r"^[01]\.\d+ \[\d \d\]$", printed, re.MULTILINE)
    names |= {"model": Model(), "images": stripes(2, 2).tensors[0]}
    exec(compile(outlook, "README.md", "exec"), names)  # noqa: S102 - our own text
    assert re.search(r"parameters: 1,016 to \d+ \(5", capsys.readouterr().out)


def test_four_lines_classify_a_picture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They needed a training first."""
    lines = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[-1]
    assert len(lines.splitlines()) == 4
    names = {"lit_compress": lit_compress, "np": np, "Image": Image}
    monkeypatch.chdir(ROOT)
    exec(compile(lines, "README.md", "exec"), names)  # noqa: S102 - our own text
    assert capsys.readouterr().out == "7\n"


def test_it_can_be_read_in_minutes() -> None:
    """It had 3,877 words, and 70 lines of tables."""
    assert len(README.split()) <= 800


def test_every_packaged_config_it_names_is_there() -> None:
    configs = Path(__file__).parent.parent / "lit_compress" / "configs"
    named = set(re.findall(r"--config (\w+\.yaml)", README))
    assert len(named) >= 2
    assert all((configs / name).is_file() for name in named)


def test_every_measured_figure_is_filled_in() -> None:
    assert not re.findall(r"\b[A-Z]+_(?:TABLE|FIGURES|ACC)\b", README)
