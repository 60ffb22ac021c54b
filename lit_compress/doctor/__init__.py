"""Checks of a run before it is started: one answer for each question, and nothing is changed.

==============  =================================================================================
``diagnose``    Ask all questions about a Trainer, a LightningModule and its data.
``Diagnosis``   All answers; prints as lines, and turns into JSON.
``Finding``     The answer to one question.
==============  =================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lit_compress.doctor.finding import Diagnosis, Finding

if TYPE_CHECKING:
    from lit_compress.doctor.examination import diagnose

__all__ = ["Diagnosis", "Finding", "diagnose"]


def __getattr__(name: str) -> Any:
    """Import ``diagnose`` on first use: versions are checked before lightning is imported."""
    if name == "diagnose":
        from lit_compress.doctor.examination import diagnose

        return diagnose
    raise AttributeError(f"module 'lit_compress.doctor' has no attribute {name!r}")
