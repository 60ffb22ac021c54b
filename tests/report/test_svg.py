"""Figures as SVG of a page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from lit_compress.report.figures import metric_over_epochs, sqnr_bars
from lit_compress.report.figures.style import FIRST, INK
from lit_compress.report.svg import svg_of
from report.cards import full_card

SVG = svg_of(metric_over_epochs(full_card()), "f", "Title & <b>", "What it says")


def test_it_is_one_element_with_a_title_and_a_description() -> None:
    root = ElementTree.fromstring(SVG)  # noqa: S314 - our own text
    assert root.tag == "svg"
    assert root.attrib["role"] == "img"
    texts = {element.get("id"): element.text for element in root.iter()}
    named = root.attrib["aria-labelledby"].split()
    assert [texts[name] for name in named] == ["Title & <b>", "What it says"]


def test_text_is_text_and_colours_are_those_of_the_page() -> None:
    assert ">val_acc</text>" in SVG
    assert FIRST not in SVG
    assert INK not in SVG
    assert "var(--first)" in SVG
    assert "currentColor" in SVG
    assert "#ffffff" not in SVG


def test_ids_and_references_begin_with_the_name() -> None:
    ids = re.findall(r'id="([^"]+)"', SVG)
    assert all(name.startswith("f-") for name in ids)
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', SVG)
    assert used
    assert {*used} <= {*ids}


def test_the_same_figure_gives_the_same_text() -> None:
    first, second = (svg_of(sqnr_bars(full_card()), "f", "a", "b") for _ in range(2))
    assert first == second
