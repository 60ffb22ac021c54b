"""The verb ``doctor``: what prevents a run from being built is an answer, too."""

from __future__ import annotations

from collections.abc import Sequence

from lit_compress.doctor.finding import Diagnosis, Finding, joined
from lit_compress.doctor.versions import check_versions


def doctor(words: Sequence[str]) -> int:
    """Check a fit from the words of the command line.

    Args:
        words: All words, with the verb first.

    Returns:
        0 if no answer is an error, else 1.
    """
    # Before lightning is imported: some of its versions must not be.
    versions = joined("versions", check_versions())
    if versions.verdict == "error":
        Diagnosis((versions,)).show(_json(words))
        return 1
    from lit_compress.cli_lightning import run

    try:
        diagnosis = run("doctor", list(words)).diagnosis
    except Exception as raised:  # the config, or a constructor: it is the answer
        diagnosis = Diagnosis((versions, _configuration(raised)))
        diagnosis.show(_json(words))
    return 0 if diagnosis is not None and diagnosis.ok else 1


def _configuration(raised: Exception) -> Finding:
    """Return why a run cannot be built from its configuration."""
    from lit_compress.cli_errors import explain
    from lit_compress.doctor.failures import split

    return Finding("configuration", "error", *split(explain(raised)))


def _json(words: Sequence[str]) -> str | None:
    """Return the file for JSON among words that could not be parsed."""
    for word, following in zip(words, [*words[1:], None], strict=True):
        name, equals, value = word.partition("=")
        if name == "--json":
            return value if equals else following
    return None
