"""A sensitivity scan in one call, without a Trainer of one's own."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule

from lit_compress.scanning.scan import Scan
from lit_compress.trainer import Trainer


def scan(module: LightningModule, data: Any, *, progress: bool = True, **options: Any) -> Scan:
    """Find how much each layer can lose, without training, before the metric drops.

    Args:
        module: Any LightningModule; it is left as it is.
        data: A LightningDataModule, or a validation loader.
        progress: Whether to show a bar.
        options: As for :meth:`lit_compress.trainer.Trainer.scan`: ``granularity``, ``levels``,
            ``tolerance``, ``monitor``, ``images``, ``include``, ``exclude``, ``curves``,
            ``dirpath`` ...

    Returns:
        The rows, and the largest ratio of each layer; its files are in ``dirpath``.
    """
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        inference_mode=False,  # what the module keeps of it can be trained on later
    )
    kind = "datamodule" if isinstance(data, LightningDataModule) else "dataloaders"
    return trainer.scan(module, **{kind: data}, **options)
