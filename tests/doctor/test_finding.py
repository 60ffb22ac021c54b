"""Answers as lines, and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_compress.doctor import Diagnosis, Finding
from lit_compress.doctor.finding import SEVERITY, Answer, joined, listed


def test_json_says_what_the_lines_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = Diagnosis((Finding("a", "fine", "x"), Finding("b", "error", "y", "do z")))
    found.show(str(tmp_path / "found.json"))
    assert capsys.readouterr().out == (
        "fine     a: x\nerror    b: y; to do: do z\n1 error, 0 warnings, 1 fine\n"
    )
    content = json.loads((tmp_path / "found.json").read_text())
    assert content["counts"] == {"error": 1, "warning": 0, "fine": 1, "skipped": 0}
    assert [Finding(**one) for one in content["findings"]] == list(found.findings)
    found.show("-")
    assert json.loads(capsys.readouterr().out) == content


ANSWERS = st.lists(
    st.builds(Answer, st.sampled_from(SEVERITY), st.text(min_size=1), st.text()), min_size=1
)


@given(ANSWERS)
def test_the_worst_answer_counts(answers: list[Answer]) -> None:
    found = joined("q", answers)
    worst = [a for a in answers if a.verdict == found.verdict]
    assert all(SEVERITY.index(a.verdict) <= SEVERITY.index(found.verdict) for a in answers)
    assert all(a.found in found.found and a.remedy in found.remedy for a in worst)


@given(st.lists(st.sampled_from("abcdef"), unique=True))
def test_no_name_is_left_uncounted(names: list[str]) -> None:
    text = listed(names)
    assert all(name in text for name in names[:4])
    assert ("other" in text) == (len(names) > 4)
