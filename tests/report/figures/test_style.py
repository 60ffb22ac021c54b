"""The look of the figures."""

from __future__ import annotations

from lit_compress.report.figures.style import new_figure, short, styled


def test_a_name_is_no_formula() -> None:
    with styled():
        text = new_figure(1.0).text(0.5, 0.5, "$\\frac{")
    assert not text.get_parse_math()


def test_a_long_name_keeps_its_end() -> None:
    assert short("a" * 50 + ".conv1").endswith("aaa.conv1")
    assert short("a" * 36) == "a" * 36
    assert short("a\x00b\u202e") == "a\ufffdb\ufffd"
