"""The curves as a picture."""

from __future__ import annotations

import builtins
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from lit_compress.sensitivity import figure

CURVES = {
    "*": {Fraction(0): 0.9, Fraction(1): 0.1, Fraction(1, 2): 0.6},
    "a": {Fraction(0): 0.9, Fraction(1, 2): 0.8},
    "b": {Fraction(0): 0.9, Fraction(1, 2): float("nan")},
}


def test_a_line_a_layer_one_for_all_and_the_tolerance() -> None:
    (axes,) = figure.draw(CURVES, "my_acc", "Net", 0.89).axes
    lines = {tuple(line.get_xdata()): line for line in axes.get_lines() if len(line.get_xdata())}
    whole = lines[0.0, 0.5, 1.0]
    assert list(whole.get_ydata()) == [0.9, 0.6, 0.1]
    assert whole.get_linewidth() > lines[0.0, 0.5].get_linewidth()
    assert axes.get_ylabel() == "my_acc"
    assert axes.get_title() == "Net"
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {
        "all layers at this ratio",
        "first layer",
        "last layer",
        "tolerance",
    }


@pytest.mark.parametrize("curves", [{}, {"*": CURVES["*"]}, {"a": CURVES["a"]}])
def test_few_curves_are_drawn_too(curves: dict[str, Any], tmp_path: Path) -> None:
    figure.save(figure.draw(curves, "m", "t"), tmp_path, "scan", ["png"])
    assert (tmp_path / "scan.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_scan_is_the_same_file(tmp_path: Path) -> None:
    """The names inside an SVG were drawn at random."""
    for name in ("one", "two"):
        figure.save(figure.draw(CURVES, "m", "t", 0.5), tmp_path / name, "scan")
    for ending in ("png", "svg"):
        first, second = (tmp_path / name / f"scan.{ending}" for name in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()


def test_matplotlib_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert figure.can_draw()
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert not figure.can_draw()
