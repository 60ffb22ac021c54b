"""The verb ``pack``."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_compress import load
from lit_compress.cli import main

EXAMPLE = str(Path(__file__).parents[1] / "examples/digits_int8")


def test_the_bytes_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "packed"
    assert main(["pack", EXAMPLE, "--to", str(target)]) == 0
    first, last = capsys.readouterr().out.splitlines()
    after = (target / "model.packed").stat().st_size
    assert first.startswith(f"model.packed: 483,327 bytes before, {after:,} after (0.")
    assert first.endswith("for the graph")
    assert last == f"written to {target}"
    assert load(target).classes


def test_4_bits_say_what_they_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pack", EXAMPLE, "--to", str(tmp_path / "packed"), "--bits", "4"]
    assert main(words) == 0
    assert "4 bits change the outputs: 1" in capsys.readouterr().out
    assert main([*words, "--min-sqnr", "60"]) == 2
    assert "below min_sqnr_db=60" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pack"], "pack: the following arguments are required: ARTIFACT, --to"),
        (["pack", EXAMPLE, "--to", "x", "--bits", "5"], "argument --bits: invalid choice"),
        (["pack", EXAMPLE, "--to", "x", "--weights", "half"], "argument --weights: invalid"),
        (["pack", "nothing", "--to", "x"], "nothing is not an artefact"),
    ],
)
def test_words_that_are_wrong(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pack", "--help"])
    assert "--min-sqnr DB" in capsys.readouterr().out
