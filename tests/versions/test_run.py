"""The page of versions shows what the script found."""

from __future__ import annotations

import configparser
import sys

from versions import run


def test_the_table_of_the_page_is_that_of_the_results() -> None:
    rows = run.read_rows()
    assert {row.python for row in rows} == set(run.PYTHONS)
    assert run.table(rows) in run.PAGE.read_text("utf-8")


def test_the_first_python_is_the_floor_of_the_package() -> None:
    config = configparser.ConfigParser()
    config.read(run.ROOT / "setup.cfg", "utf-8")
    assert config["options"]["python_requires"] == f">={run.PYTHONS[0]}"


def test_an_interpreter_is_found() -> None:
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert run.interpreter(here)
    assert run.interpreter("3.99") is None
