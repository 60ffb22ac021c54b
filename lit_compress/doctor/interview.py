"""Asking one question after the other: each on its own, unless it depends on one that failed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from lit_compress.doctor.failures import PACKAGE, answer_of, split
from lit_compress.doctor.finding import Answer, Diagnosis, Finding, fine, joined, warning

#: What a question returns: one answer, or those of several checks.
Asked = Answer | Sequence[Answer]


class Interview:
    """The questions that were asked, and their answers.

    Example:
        >>> interview = Interview()
        >>> interview.ask("data", lambda: fine("4 batches"))
        >>> interview.ask("forward pass", lambda: 1 / 0)
        >>> interview.ask("export", lambda: fine("can be captured"), needs=["forward pass"])
        >>> for found in interview.diagnosis().findings:
        ...     print(found.verdict, found.question, found.found)
        fine data 4 batches
        error forward pass ZeroDivisionError: division by zero
        skipped export not asked, since forward pass has an error
    """

    def __init__(self) -> None:
        self._findings: dict[str, Finding] = {}

    def ask(
        self,
        question: str,
        check: Callable[[], Asked],
        needs: Sequence[str] = (),
        remedy: str = "",
    ) -> None:
        """Ask a question; an error of the check is its answer.

        Args:
            question: Name of the question.
            check: Finds the answer.
            needs: Names of questions that it depends on.
            remedy: What to do about an error that is not of this package.
        """
        if (failed := self.failed(needs)) is not None:
            self.skip(question, failed)
            return
        try:
            answers = check()
        except Exception as raised:  # it is the answer
            answers = answer_of(raised, remedy)
        self.record(joined(question, [answers] if isinstance(answers, Answer) else answers))

    def record(self, found: Finding) -> None:
        """Record an answer, or add it to what is known of its question.

        Args:
            found: The answer.
        """
        known = self._findings.get(found.question)
        if known is not None:
            both = [Answer(one.verdict, one.found, one.remedy) for one in (known, found)]
            found = joined(found.question, both)
        self._findings[found.question] = found

    def skip(self, question: str, cause: str) -> None:
        """Record that a question cannot be asked.

        Args:
            question: Name of the question.
            cause: Name of the question whose error is the reason.
        """
        why = f"not asked, since {cause} has an error"
        self.record(Finding(question, "skipped", why))

    def failed(self, questions: Sequence[str]) -> str | None:
        """Return the first of some questions that has an error, or that one it depends on has.

        Args:
            questions: Names of the questions.
        """
        for name in questions:
            found = self._findings.get(name)
            if found is not None and found.verdict == "error":
                return name
            if found is not None and found.verdict == "skipped":
                return found.found.partition("since ")[2].removesuffix(" has an error") or name
        return None

    def asked(self, question: str) -> bool:
        """Tell whether a question has an answer."""
        return question in self._findings

    def diagnosis(self, order: Sequence[str] = ()) -> Diagnosis:
        """Return all answers.

        Args:
            order: Names of the questions that come first, in their order.
        """
        first = [self._findings[name] for name in order if name in self._findings]
        return Diagnosis((*first, *(f for n, f in self._findings.items() if n not in order)))


def with_own_warnings(check: Callable[[], object], otherwise: str) -> list[Answer]:
    """Run a part of the package; its warnings are answers.

    Args:
        check: The part.
        otherwise: What the answer says if there is no warning.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check()
    own = [w for w in caught if w.filename.startswith(PACKAGE) and w.category is UserWarning]
    found = [warning(*split(" ".join(str(w.message).split()))) for w in own]
    return found or [fine(otherwise)]
