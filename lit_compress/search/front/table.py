"""What is written of a front: its table and a config for each point; other trials go."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_compress.files import write_whole
from lit_compress.search.front.points import Point, shown
from lit_compress.search.objectives import Objective
from lit_compress.search.places import LOG, keep_card, remove, trial_folder
from lit_compress.search.space import Space
from lit_compress.search.study import REASON

#: The table of the front, and the folder of the configs of its points.
TABLE, CONFIGS = "front.csv", "front"


def write_front(
    dirpath: Path, points: Sequence[Point], space: Space, objectives: Sequence[Objective]
) -> None:
    """Write the table of the front, and a config for each point; those of earlier fronts go.

    Args:
        dirpath: Folder of the search.
        points: The front.
        space: The configuration of the fit, and what varies in it.
        objectives: The objectives of the study.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = [one.key for one in space.ranges]
    names = [one.name for one in objectives]
    writer.writerow(["trial", *names, *keys, "config", "artifact", "host"])
    for point in points:
        values = [int(v) if v.is_integer() else v for v in point.values]
        settings = [point.settings[key] for key in keys]
        place = f"{CONFIGS}/{point.config()}"
        writer.writerow([point.number, *values, *settings, place, point.artifact, point.host])
        write_whole(dirpath / place, _config(point, space, objectives))
    write_whole(dirpath / TABLE, text.getvalue())
    current = {point.config() for point in points}
    for path in (dirpath / CONFIGS).glob("trial-*.yaml"):
        if path.name not in current:
            path.unlink(missing_ok=True)


def _config(point: Point, space: Space, objectives: Sequence[Objective]) -> str:
    values = zip(objectives, point.values, strict=True)
    reached = ", ".join(f"{one.name} {shown(one, value)}" for one, value in values)
    content = yaml.safe_dump(space.config_of(point.settings), sort_keys=False)
    return (
        f"# Trial {point.number} of a search: {reached}.\n#\n"
        f"#   lit-compress fit --config {point.config()}\n{content}"
    )


def clear(dirpath: Path, trials: Sequence[Any], points: Sequence[Point]) -> None:
    """Remove what the trials below a folder wrote that are not on the front.

    Those that ended keep their card, and those that failed what they printed.

    Args:
        dirpath: Folder of the search.
        trials: The trials of the study.
        points: The front.
    """
    from optuna.trial import TrialState

    kept = {point.number for point in points}
    for trial in trials:
        folder = trial_folder(dirpath, trial.number)
        if trial.number in kept or not folder.is_dir():
            continue
        if trial.state == TrialState.COMPLETE:
            keep_card(folder)
        elif trial.state == TrialState.PRUNED:
            remove(folder)
        elif trial.state == TrialState.FAIL:
            remove(folder, but=LOG if REASON in trial.user_attrs else None)
