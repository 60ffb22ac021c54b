"""Where trials write, and what is kept of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lit_compress.artifact.card import Card
from lit_compress.artifact.folder.card import read_card
from lit_compress.artifact.write import CARD
from lit_compress.errors import SearchError
from lit_compress.files import write_whole
from lit_compress.search.space import ARGUMENTS, CLASS

#: The folder of trials, and the file that says which study a folder is of.
TRIALS, OWNER = "trials", "study.json"
#: Files in the folder of a trial: what it was run with, and what it printed.
CONFIG, LOG = "trial.yaml", "fit.log"


def claim(dirpath: Path, study: str) -> None:
    """Note that a folder is that of a study.

    Args:
        dirpath: The folder. It is made if it does not exist.
        study: Name of the study.

    Raises:
        SearchError: If it is the folder of another study, or cannot be written.
    """
    try:
        dirpath.mkdir(parents=True, exist_ok=True)
        owner = dirpath / OWNER
        if not owner.is_file():
            write_whole(owner, json.dumps({"study": study}) + "\n")
        found = json.loads(owner.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SearchError(f"dirpath {dirpath} cannot be used ({error}): name another") from error
    if found != {"study": study}:
        raise SearchError(
            f"{dirpath} has the trials of another study ({found}), not of {study!r}: give another "
            "--dirpath"
        )


def trial_folder(dirpath: Path, number: int) -> Path:
    """Return the folder of a trial.

    Args:
        dirpath: Folder of the search.
        number: Number of the trial in the study.
    """
    return dirpath / TRIALS / f"{number:05}"


def check_places(config: Mapping[str, Any]) -> None:
    """Check that the trials of a search write into folders of their own.

    Args:
        config: The whole configuration of the fit.

    Raises:
        SearchError: If a callback writes into a given folder.
    """
    for callback in config["trainer"]["callbacks"] or ():
        given = callback.get(ARGUMENTS, {}).get("dirpath")
        if given is not None:
            name = callback[CLASS].rpartition(".")[2]
            raise SearchError(
                f"callbacks.{name}.dirpath is {given}, and all trials would write there: leave it "
                "out, so that each trial writes into its own folder"
            )


def placed(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the configuration of a fit that writes into a folder, and shows no progress.

    Args:
        config: The whole configuration.
        folder: The folder.
    """
    trainer = {**config["trainer"], "default_root_dir": str(folder)}
    trainer |= {"enable_progress_bar": False, "enable_model_summary": False}
    loggers = trainer["logger"]
    if isinstance(loggers, list):
        trainer["logger"] = [_saved_in(logger, folder) for logger in loggers]
    else:
        trainer["logger"] = _saved_in(loggers, folder)
    return {**config, "trainer": trainer}


def _saved_in(logger: Any, folder: Path) -> Any:
    arguments = logger.get(ARGUMENTS) if isinstance(logger, Mapping) else None
    if not arguments or "save_dir" not in arguments:
        return logger  # it writes no files, or into the root folder of the Trainer
    return {**logger, ARGUMENTS: {**arguments, "save_dir": str(folder)}}


def card_of(folder: Path) -> tuple[Card, Path]:
    """Return the card that a trial wrote, and the folder of its artefact.

    Args:
        folder: Folder of the trial.

    Raises:
        SearchError: If there is not one card.
        ArtifactError: If it cannot be read.
    """
    cards = sorted(folder.rglob(CARD))
    if len(cards) != 1:
        raise SearchError(f"a trial writes one {CARD}, and {folder} has {len(cards)}")
    return read_card(cards[0].parent), cards[0].parent


def keep_card(folder: Path) -> None:
    """Remove all files of a trial but its card: artefact, checkpoints and logs.

    Another worker may do the same at the same time.

    Args:
        folder: Folder of the trial. It need not exist.
    """
    for path in sorted(folder.rglob("*"), key=lambda one: len(one.parts), reverse=True):
        with suppress(OSError):  # a folder with the card in it, or removed by another worker
            if path.is_dir():
                path.rmdir()
            elif path.name != CARD:
                path.unlink()


def remove(folder: Path, *, but: str | None = None) -> None:
    """Remove the folder of a trial that has no result.

    Args:
        folder: The folder. It need not exist.
        but: Name of a file directly in it to keep.
    """
    if but is None or not (folder / but).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != but:
            path.unlink(missing_ok=True)
