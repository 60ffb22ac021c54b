"""Questions are independent, unless one says that it needs another."""

from __future__ import annotations

import warnings

from lightning.pytorch.utilities import rank_zero_warn

from lit_compress.doctor.failures import PACKAGE
from lit_compress.doctor.finding import error, fine
from lit_compress.doctor.interview import Interview, with_own_warnings


def test_a_skipped_question_names_the_first_cause() -> None:
    interview = Interview()
    interview.ask("a", lambda: error("x", "y"))
    interview.ask("b", lambda: fine("x"), ["a"])
    interview.ask("c", lambda: fine("x"), ["b"])
    interview.ask("d", lambda: [fine("x"), error("z", "w")])
    found = {one.question: one for one in interview.diagnosis(["d"]).findings}
    assert list(found) == ["d", "a", "b", "c"]
    assert found["c"].found == found["b"].found == "not asked, since a has an error"
    assert (found["d"].verdict, found["d"].found) == ("error", "z")
    assert interview.failed(["c"]) == "a"
    assert interview.failed(["e"]) is None
    assert not interview.asked("e")


def test_only_warnings_of_this_package_are_answers() -> None:
    (answer,) = with_own_warnings(lambda: rank_zero_warn("other"), "nothing")
    assert (answer.verdict, answer.found) == ("fine", "nothing")

    def warns() -> None:
        warnings.warn_explicit("few inputs; set n to 9", UserWarning, f"{PACKAGE}/x.py", 1)

    (answer,) = with_own_warnings(warns, "nothing")
    assert (answer.verdict, answer.found, answer.remedy) == ("warning", "few inputs", "set n to 9")
