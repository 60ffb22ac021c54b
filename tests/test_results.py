"""The tables and the picture of README and docs say what the files in experiments/results say."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


@pytest.fixture(scope="module")
def drawing() -> dict[str, Any]:
    """The names of experiments/draw.py, which imports from its own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        names = runpy.run_path(str(EXPERIMENTS / "draw.py"))
        patch.delitem(sys.modules, "rows", raising=False)
    return names


def test_the_pages_are_as_they_are_generated(drawing: dict[str, Any]) -> None:
    for path, text in drawing["pages"]().items():
        assert path.read_text("utf-8") == text, f"run experiments/draw.py: {path.name} differs"


def test_the_picture_shows_the_same_points(drawing: dict[str, Any]) -> None:
    assert drawing["described"]() in drawing["PICTURE"].read_text("utf-8")


def test_a_row_without_its_data_is_named_as_missing(
    drawing: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(drawing["measured"].__globals__, "RESULTS", tmp_path)
    table = drawing["readme_table"]()
    assert "Not measured yet: ShuffleNetV2, FashionMNIST; " in table
    assert len(table.split("\n\n")[0].splitlines()) == 2


def test_every_kept_file_has_its_count(drawing: dict[str, Any]) -> None:
    models = sorted(drawing["RESULTS"].glob("*/*/model.onnx"))
    for model in models:
        counted = json.loads((model.parent / "test.json").read_text("utf-8"))["correct"]["int8"]
        assert 0 < counted <= 10_000
