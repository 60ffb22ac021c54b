"""Turn a figure into SVG that is a part of a page and follows its colours."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from lit_compress.report.figures.style import FIRST, INK, QUIET, SECOND, plain, styled

#: The page's colour for each colour of the figures.
COLOURS = {
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    QUIET: "var(--quiet)",
    INK: "currentColor",
    "#808080": "var(--quiet)",
}
#: Families that matplotlib names for each text; the page has its own.
FAMILY = re.compile(r"font-family: [^;]+;?\s*")


def svg_of(figure: Any, name: str, title: str, description: str) -> Markup:
    """Return a figure as an ``svg`` element.

    Text stays text. Colours are those of the page, so that the figure suits light and dark.

    Args:
        figure: The ``matplotlib.figure.Figure``.
        name: A name that no other figure of the page has; it begins every id.
        title: What the figure shows, for a screen reader.
        description: What it says, for a screen reader.

    Example:
        >>> from lit_compress.artifact import Card
        >>> from lit_compress.artifact.history import Epoch
        >>> from lit_compress.report.figures import metric_over_epochs
        >>> figure = metric_over_epochs(Card("run", (), {}, history=(Epoch(0, 2.0, 1000),)))
        >>> svg = svg_of(figure, "time", "Time", "2 seconds")
        >>> svg.startswith("<svg "), "http" in svg, '<title id="time-title">Time</title>' in svg
        (True, False, True)
    """
    content = io.StringIO()
    with styled(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of signs that a font lacks: the page's has
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(content.getvalue())  # noqa: S314 - matplotlib wrote it just now
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("metadata", "style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {
            key.rpartition("}")[2]: _value(key, value, name)
            for key, value in element.attrib.items()
        }
    _describe(root, name, title, description)
    return Markup(ElementTree.tostring(root, "unicode"))  # noqa: S704 - ElementTree escaped it


def _value(key: str, value: str, name: str) -> str:
    """Return the value of an attribute with ids of its own and the page's colours."""
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href"):
        return value.replace("#", f"#{name}-", 1)
    if key == "clip-path":
        return value.replace("url(#", f"url(#{name}-")
    if key == "style":
        value = FAMILY.sub("", value)
        for drawn, shown in COLOURS.items():
            value = value.replace(drawn, shown)
    return value


def _describe(root: ElementTree.Element, name: str, title: str, description: str) -> None:
    """Give the element its size, role, title and description."""
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
    }
    for place, (tag, text) in enumerate({"title": title, "desc": description}.items()):
        element = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        element.text = plain(text)
        root.insert(place, element)
