"""Write the golden files of a format version, once: what it leaves, for all later ones to read.

    PYTHONPATH=CHECKOUT:CHECKOUT/tests python tests/golden/make_version.py

Writes ``version_N`` beside itself, where N is ``FORMAT_VERSION``, and refuses where it is: files of
a version are never made anew. ``test_versions.py`` reads them at every later commit.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

import lit_compress
from lit_compress import Schedule
from lit_compress.artifact.card import FORMAT_VERSION
from lit_compress.callbacks import (
    CompressionReport,
    FilterPruning,
    KnowledgeDistillation,
    QuantizationAwareTraining,
)

FOLDER = Path(__file__).parent
EPOCHS, HALF = 5, 3


def fitted(folder: Path, ckpt_path: Path | None = None) -> ForeignModule:
    """Train, distil, prune, train as the int8 file computes, convert and report.

    Args:
        folder: Takes the artefact, and a checkpoint of each epoch.
        ckpt_path: A checkpoint to go on from.
    """
    seed_everything(0, verbose=False)
    parts: list[Callback] = [
        KnowledgeDistillation(),
        FilterPruning(0.4, schedule=Schedule(1, 2)),
        QuantizationAwareTraining(
            first=3, freeze=4, monitor="my_acc", dirpath=str(folder / "artefact")
        ),
        CompressionReport(),
        ModelCheckpoint(folder, "{epoch}", save_top_k=-1, auto_insert_metric_name=False),
    ]
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False}
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        callbacks=parts,
        default_root_dir=folder,
        enable_model_summary=False,
        **quiet,
    )
    module = ForeignModule()
    trainer.fit(module, loader(), loader(64, 1), ckpt_path=ckpt_path)
    return module


def main() -> None:
    """Write the files.

    Raises:
        SystemExit: If they are there.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    target = FOLDER / f"version_{FORMAT_VERSION}"
    if target.exists():
        raise SystemExit(f"{target} is there, and the files of a version are never made anew")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        fitted(folder)
        target.mkdir()
        shutil.copytree(folder / "artefact", target / "artefact")
        shutil.copy(folder / f"{HALF}.ckpt", target / "half.ckpt")
    images = loader(16, 1).dataset[:16][0].numpy()  # type: ignore[index]
    model = lit_compress.load(target / "artefact", check=True)
    lit_compress.load(target / "artefact", weights="fp32", check=True)
    module = lit_compress.restore(target / "artefact", ForeignModule).eval()
    half = lit_compress.load_from_checkpoint(ForeignModule, target / "half.ckpt").eval()
    with torch.no_grad():
        floats = [one(torch.from_numpy(images)).numpy() for one in (module, half)]
    np.savez_compressed(
        target / "expected.npz", images=images, int8=model(images), final=floats[0], half=floats[1]
    )


if __name__ == "__main__":
    main()
