"""The plain data of the page."""

from __future__ import annotations

import pytest

from lit_compress.artifact import Card
from lit_compress.report.content import Run, Table


def test_a_table_is_its_head_and_its_body() -> None:
    table = Table("Sizes", [["layer", "weights"], ["a", "1"], ["b", "2"]])
    assert (table.head, table.body) == (["layer", "weights"], [["a", "1"], ["b", "2"]])


@pytest.mark.parametrize(
    ("name", "title"), [("digits", "digits"), ("", "a/card.json"), ("  ", "a/card.json")]
)
def test_a_run_without_a_name_is_called_by_its_place(name: str, title: str) -> None:
    assert Run(1, "a/card.json", Card(name, (), {})).title == title
