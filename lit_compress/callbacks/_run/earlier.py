"""What a fit that trains nothing finds: the artefact of the same weights, an older one, or a part.

A run that is killed behind its last checkpoint trains nothing when it goes on. The artefact in its
folder may then be that of an earlier end of the run, as with ``max_time``, or lack its report.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import rank_zero_info

from lit_compress.artifact import read_card
from lit_compress.checkpoints.folder import is_artifact
from lit_compress.checkpoints.saved_weights import WEIGHTS, holds_weights
from lit_compress.errors import ArtifactError, CheckpointError


class AddsToCard(Callback):
    """A callback that adds to the card of an artefact, and says so in its ``config`` by name."""


def is_complete(folder: Path, module: LightningModule, adding: Sequence[AddsToCard]) -> bool:
    """Tell whether a folder has the whole artefact of a network.

    Args:
        folder: The folder.
        module: The user's module, or a copy of it, with the weights that were converted.
        adding: The callbacks of the run that add to the card.
    """
    if not is_artifact(folder):
        return False
    try:
        missing = {type(one).__name__ for one in adding} - read_card(folder).config.keys()
        return not missing and holds_weights(folder / WEIGHTS, module)
    except (ArtifactError, CheckpointError) as error:
        rank_zero_info(f"the artefact of an earlier fit is written again, since {error}")
        return False
