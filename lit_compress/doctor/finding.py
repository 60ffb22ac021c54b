"""The answer to one question about a run, and all answers together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lit_compress.files import write_whole

#: What an answer says. A question is ``skipped`` if one that it depends on has an error.
Verdict = Literal["fine", "warning", "error", "skipped"]
#: From the best to the worst; one answer of several problems has the worst of their verdicts.
SEVERITY: tuple[Verdict, ...] = ("fine", "skipped", "warning", "error")
#: Names and numbers that a line shows; it counts the others.
SHOWN = 4


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        question: Name of the question, such as ``labels``; of a callback, its class.
        verdict: ``fine``, ``warning`` or ``error``; ``skipped`` if it could not be asked.
        found: What was found, with the layer, key or file.
        remedy: What to do about a warning or an error; empty for other answers.

    Example:
        >>> print(Finding("labels", "error", "label 10, and the network has 10 classes", "count"))
        error    labels: label 10, and the network has 10 classes; to do: count
    """

    question: str
    verdict: Verdict
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict:8} {self.question}: {self.found}"
        return f"{line}; to do: {self.remedy}" if self.remedy else line


@dataclass(frozen=True)
class Diagnosis:
    """The answers to all questions about a run.

    Attributes:
        findings: One answer for each question.

    Example:
        >>> found = Diagnosis((Finding("versions", "fine", "torch 2.10"),))
        >>> print(found)
        fine     versions: torch 2.10
        0 errors, 0 warnings, 1 fine
        >>> found.ok
        True
    """

    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The answers that are errors."""
        return self.of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The answers that are warnings."""
        return self.of("warning")

    @property
    def ok(self) -> bool:
        """Whether no answer is an error."""
        return not self.errors

    def of(self, verdict: Verdict) -> tuple[Finding, ...]:
        """Return the answers with a verdict.

        Args:
            verdict: The verdict.
        """
        return tuple(found for found in self.findings if found.verdict == verdict)

    def to_dict(self) -> dict[str, Any]:
        """Return the answers as plain values, for JSON."""
        counts = {verdict: len(self.of(verdict)) for verdict in reversed(SEVERITY)}
        findings = [asdict(found) for found in self.findings]
        return {"format_version": 1, "ok": self.ok, "counts": counts, "findings": findings}

    def to_json(self) -> str:
        """Return the answers as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def show(self, json: str | None = None) -> None:
        """Print all answers, one a line.

        Args:
            json: File that gets them as JSON; ``-`` prints the JSON in place of the lines.
        """
        if json == "-":
            print(self.to_json(), end="")
            return
        print(self)
        if json is not None:
            write_whole(json, self.to_json())

    def __str__(self) -> str:
        skipped = len(self.of("skipped"))
        total = f"{_count(len(self.errors), 'error')}, {_count(len(self.warnings), 'warning')}, "
        total += f"{len(self.of('fine'))} fine" + (f", {skipped} skipped" if skipped else "")
        return "\n".join([*map(str, self.findings), total])


@dataclass(frozen=True)
class Answer:
    """What one check of a question says.

    Attributes:
        verdict: The verdict.
        found: What was found.
        remedy: What to do.
    """

    verdict: Verdict
    found: str
    remedy: str = ""


def fine(found: str) -> Answer:
    """Return the answer that all is well."""
    return Answer("fine", found)


def warning(found: str, remedy: str) -> Answer:
    """Return an answer that warns."""
    return Answer("warning", found, remedy)


def error(found: str, remedy: str) -> Answer:
    """Return an answer that is an error."""
    return Answer("error", found, remedy)


def joined(question: str, answers: Sequence[Answer]) -> Finding:
    """Return the answers of several checks of one question as one line.

    Args:
        question: Name of the question.
        answers: At least one answer. Those that are less severe than the worst are left out.

    Example:
        >>> joined("data", [fine("4 batches"), error("NaN in x", "clean x")]).found
        'NaN in x'
    """
    worst = max((answer.verdict for answer in answers), key=SEVERITY.index)
    chosen = [answer for answer in answers if answer.verdict == worst]
    remedies = dict.fromkeys(answer.remedy for answer in chosen if answer.remedy)
    found = "; ".join(dict.fromkeys(answer.found for answer in chosen))
    return Finding(question, worst, found, "; ".join(remedies))


def listed(names: Sequence[str]) -> str:
    """Return names for a line: the first ones, and how many others there are.

    Args:
        names: The names.

    Example:
        >>> listed(["a", "b", "c", "d", "e", "f"])
        'a, b, c, d and 2 others'
    """
    text = ", ".join(names[:SHOWN])
    return f"{text} and {_count(len(names) - SHOWN, 'other')}" if len(names) > SHOWN else text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
