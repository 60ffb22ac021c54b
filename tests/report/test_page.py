"""The page about runs: its numbers are the cards', its text is escaped, nothing is requested."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from lit_compress.artifact import Card, Metric, Variant
from lit_compress.artifact.history import Layers
from lit_compress.errors import ReportError
from lit_compress.report import page as page_module
from lit_compress.report.content import Drawing, Run, Skipped
from lit_compress.report.page import build_page
from lit_compress.report.table import table_rows
from report.cards import full_card


class Reader(HTMLParser):
    """Collects the tags, attributes, ids and texts of a page, and the cells of its tables."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._open = ""
        self._caption = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag == "caption":
            self._caption = ""
        if tag == "tr":
            self.tables.setdefault(self._caption, []).append([])
        if tag in ("th", "td"):
            self.tables[self._caption][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.append(data.strip())
        if self._open == "caption":
            self._caption += data
        if self._open in ("th", "td"):
            self.tables[self._caption][-1][-1] += data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag in tags]


def page_of(*cards: Card, **options: object) -> str:
    runs = [Run(n, f"v{n}/card.json", card) for n, card in enumerate(cards, 1)]
    return build_page(runs, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def full() -> str:
    return page_of(full_card())


def test_the_table_of_variants_is_that_of_the_console(full: str) -> None:
    assert Reader(full).tables["The variants of the network"] == table_rows(full_card())


def test_the_headline(full: str) -> None:
    text = " ".join(Reader(full).text)
    for fact in [
        "val_acc 0.9721 → to 0.9026",
        "95 % interval 0.8899 to 0.9225, 1,200 val images",
        "on disk 1.48 MB → to 120.51 kB 1,483,192 bytes, then 120,507 bytes",
        "parameters 351,610 → to 44,396",
        "speed over dense in PyTorch 14.5x 99% interval 14.00 to 15.70, batch 1, 2 threads",
        "speed over pruned onnx in the same runtime no difference 99% interval 0.97 to 1.06",
    ]:
        assert fact in text


def test_the_numbers_of_each_figure_are_in_a_table(full: str) -> None:
    tables = Reader(full).tables
    assert tables["Channels and weights kept"][1] == [
        "net.conv1",
        "16 to 7 (44%)",
        "1,440 to 630 (44%)",
    ]
    assert tables["Error of each layer in int8"][3] == ["net.conv2", "41.2", "56.9", "int8"]
    assert tables["Error of each layer in int8"][4] == ["net.head.lstm", "-", "-", "float"]
    epochs = tables["Metric and schedule over the epochs"]
    assert epochs[3] == ["2", "0.5800", "0.20", "yes", "2.2", "251,610"]
    assert epochs[7][1] == "-"
    assert tables["Confusion of int8"][2] == ["1", "40", "300", "60"]
    assert tables["Where it was measured"][-1] == ["seed", "7"]


def test_of_many_classes_there_is_a_heat_map() -> None:
    counts = tuple(tuple(7 if row == column else row for column in range(30)) for row in range(30))
    metric = Metric("val_acc", 0.5, "val", 9, confusion=counts)
    page = page_of(Card("run", (Variant("dense", 9, 9, metric=metric),), {}))
    assert page.count("<svg") == 1
    assert Reader(page).tables["The most frequent wrong answers of dense"][1] == ["29", "0", "29"]


def test_float_weights_are_listed(full: str) -> None:
    assert Reader(full).tables["Weights of int8 that are float"][1:] == [
        ["net.head.lstm", "40.0%", "lstm has no int8 form here"]
    ]


def test_what_fell_short_is_said(full: str) -> None:
    assert "FilterPruning: 0.60 of 0.70 reached" in full
    assert "only 60% of the weights are int8" in full


def test_a_figure_without_its_data_is_absent_and_the_page_says_why() -> None:
    page = page_of(Card("old", (Variant("dense", 10, 10),), {}))
    absent = re.findall(
        r'<p class="absent"><strong>(.+?)</strong> (?:is|are) not shown: (.+)\.</p>', page
    )
    assert [title for title, _ in absent] == [
        "Channels and weights kept",
        "Channels over the epochs",
        "Error of each layer in int8",
        "Metric and schedule over the epochs",
        "Confusion of dense",
        "Sensitivity curves",
    ]
    assert "no history" in absent[0][1]
    assert "<svg" not in page


def test_text_of_a_card_is_escaped() -> None:
    evil = "<script>alert(1)</script> $\\frac{ \x00 \ud800 \u202e"
    card = full_card(evil)
    counts = {evil: 3, **card.history[0].layers.channels}  # type: ignore[union-attr]
    history = tuple(replace(epoch, layers=Layers(counts, counts)) for epoch in card.history)
    dense = replace(card.variants[0], name=evil, note=evil, metric=Metric(evil, 0.5, evil, 7))
    hostile = replace(
        card,
        variants=(dense, *card.variants[1:]),
        environment={evil: evil},
        config={evil: evil},
        history=history,
    )
    page = page_of(hostile, hostile, skipped=[Skipped(evil, evil)])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    page.encode()
    assert not {tag for tag, _ in Reader(page).tags} & {"script", "iframe", "object", "img"}


def test_nothing_is_requested(full: str) -> None:
    page = page_of(full_card(), full_card("other"))
    for attrs in [*Reader(full).all(), *(attrs for _, attrs in Reader(page).tags)]:
        for key, value in attrs.items():
            if key in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                assert str(value).startswith(("#", "data:,")), attrs
    assert not re.search(r"https?://|@import|url\((?!#)", page)


def test_ids_are_unique_and_every_reference_has_one() -> None:
    page = Reader(page_of(full_card(), full_card("other")))
    ids = Counter(attrs["id"] for _, attrs in page.tags if "id" in attrs)
    assert not [name for name, count in ids.items() if count > 1]
    for _, attrs in page.tags:
        for name in (attrs.get("aria-labelledby") or "").split():
            assert name in ids
        if (attrs.get("href") or "").startswith("#"):
            assert (attrs["href"] or "")[1:] in ids


def test_headings_are_in_order_and_tables_have_captions() -> None:
    page = Reader(page_of(full_card(), full_card("b"), skipped=[Skipped("x", "y")]))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.all("th"))
    assert all(attrs.get("role") == "img" for attrs in page.all("svg"))


def test_several_runs_are_compared() -> None:
    smaller = full_card("small")
    last = replace(smaller.variants[-1], bytes=100_000)
    page = page_of(full_card(), replace(smaller, variants=(*smaller.variants[:-1], last)))
    rows = Reader(page).tables["Metric against size"]
    assert rows[1:] == [
        ["1", "quickstart/0", "int8", "0.9026", "120.51 kB", "no"],
        ["2", "small", "int8", "0.9026", "100.00 kB", "yes"],
    ]


def test_scans_are_shown() -> None:
    page = page_of(full_card(), scans=[Drawing("scan-1", "Sensitivity: a", absent="it is empty")])
    assert "<strong>Sensitivity: a</strong> is not shown: it is empty." in page


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "find_spec", lambda name: None)
    with pytest.raises(
        ReportError, match=r"jinja2 and matplotlib: pip install 'lit-compress\[report\]'"
    ):
        page_of(full_card())


def test_the_same_cards_give_the_same_page(full: str) -> None:
    assert page_of(full_card()) == full
