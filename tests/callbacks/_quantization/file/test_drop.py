"""The file with the fewest layers in float that keeps a metric is what stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lit_compress.artifact import Metric
from lit_compress.callbacks._quantization.file.drop import DropSearch, MeasuredFile, lost_of
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.errors import AccuracyError

LAYERS = "abcdefgh"
SETS = [frozenset(LAYERS[:count]) for count in range(len(LAYERS))]


def metric(value: float) -> Metric:
    return Metric("acc", value, "val", 100)


def search(values: list[float], on_drop: str = "error", rises: bool = True) -> DropSearch:
    """Return a search over files whose metric depends on the number of layers in float."""

    def write(path: Path, floats: frozenset[str]) -> MeasuredFile:
        path.write_text("".join(sorted(floats)))
        model: Any = path.read_text()  # stands for the opened file
        return MeasuredFile(model, metric(values[len(floats)]))

    settings = Settings(monitor="acc", max_drop=0.1, on_drop=on_drop)  # type: ignore[arg-type]
    return DropSearch(settings, metric(0.9), rises, SETS, len(LAYERS), write)


@pytest.mark.parametrize("enough", range(len(SETS)))
def test_the_first_file_that_keeps_the_metric_is_found(tmp_path: Path, enough: int) -> None:
    values = [0.85 if count >= enough else 0.5 for count in range(len(SETS))]
    found = search(values).run(tmp_path / "model.onnx", 0.1)
    assert found.floats == SETS[enough]
    assert found.file == MeasuredFile(LAYERS[:enough], metric(0.85))  # type: ignore[arg-type]
    assert (tmp_path / "model.onnx").read_text() == LAYERS[:enough]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert 1 <= found.evaluations <= len(SETS)


@pytest.mark.parametrize(("allowed", "floats"), [(0.05, 0), (0.04, 4)])
def test_what_may_be_lost_is_lost(tmp_path: Path, allowed: float, floats: int) -> None:
    values = [0.85] * 4 + [0.9] * 4
    assert search(values).run(tmp_path / "m.onnx", allowed + 1e-9).floats == SETS[floats]


def test_a_metric_that_no_file_keeps(tmp_path: Path) -> None:
    values = [0.1] * 5 + [0.3, 0.2, 0.2]
    with pytest.raises(AccuracyError, match=r"max_drop 0\.1 cannot be kept: acc is 0\.9000"):
        search(values).run(tmp_path / "m.onnx", 0.1)
    assert not list(tmp_path.iterdir())
    with pytest.warns(UserWarning, match="the file with the smallest drop was written"):
        found = search(values, "warn").run(tmp_path / "m.onnx", 0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "".join(sorted(found.floats)) == found.file.model


@pytest.mark.parametrize(("rises", "lost"), [(True, 0.25), (False, -0.25)])
def test_which_way_is_down(rises: bool, lost: float) -> None:
    assert lost_of(metric(0.75), metric(0.5), rises) == lost
