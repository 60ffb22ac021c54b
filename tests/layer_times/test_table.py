"""Layer times are measured once for each shape, and are those of the layers in a whole file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_compress.errors import InvalidArgumentError
from lit_compress.layer_times import Layer, LayerTimes, table


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def conv(inputs: int, outputs: int, size: int = 8) -> Layer:
    return Layer(inputs, outputs, (size, size), 1, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1))


def test_a_larger_layer_takes_longer() -> None:
    small, large = LayerTimes().seconds([conv(8, 8), conv(128, 128, 16)])
    assert 0 <= 5 * small < large


def test_a_larger_batch_takes_longer() -> None:
    one, many = (LayerTimes(batch).seconds([conv(64, 64)])[0] for batch in (1, 16))
    assert many > 4 * one


def test_each_shape_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Layer] = []

    def seconds(layer: Layer, batch: int) -> float:
        measured.append(layer)
        return float(layer.outputs)

    monkeypatch.setattr(table, "_seconds", seconds)
    layers = [conv(8, 8), conv(8, 16), conv(8, 8)]
    assert LayerTimes().seconds(layers) == [8.0, 16.0, 8.0]
    assert len(measured) == 2
    assert LayerTimes().seconds([*layers, conv(8, 24)])[-1] == 24.0
    assert len(measured) == 3
    LayerTimes(batch=2).seconds(layers)
    assert len(measured) == 5


def test_without_onnxruntime_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InvalidArgumentError, match="pip install onnxruntime"):
        LayerTimes()
