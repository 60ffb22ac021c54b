from __future__ import annotations

import pytest

from lit_compress.evaluation.ranks import queue, team

from .threads import Threads


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Threads:
    """Three processes, which are threads; they count their works together, so give the numbers."""
    made = Threads(3)
    for module in (team, queue):
        monkeypatch.setattr(module, "has_others", lambda trainer: True)
        monkeypatch.setattr(module, "board_of_run", lambda name, doing: made.board("work", doing))
    monkeypatch.setattr(team.dist, "gather_object", made.gather)
    return made
