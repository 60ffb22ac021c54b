"""Measure the test accuracy of the three networks on both data sets, in float and in int8.

    python experiments/int8_accuracy.py --data-dir DIR --runs runs [--calibration histogram]

Takes the checkpoint ``RUNS/<config>/version_0/checkpoints/last.ckpt`` of each of the six packaged
configs, where it exists, and converts it with the default settings. Prints both accuracies on the
test images, how often both predict the same class, the SQNR, and the size of the file divided by
that of the float weights.

For the table in the README, ShuffleNetV2 trained for 4 epochs on FashionMNIST and 6 on CIFAR-10,
MobileNetV2 for 3 and 4, and AlexNet for 1 (``--trainer.max_epochs``, and the schedule's ``T_max``).
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

import lit_compress
from lit_compress.artifact import sqnr_db
from lit_compress.callbacks import PostTrainingQuantization
from lit_compress.datamodules import CIFAR10DataModule, FashionMNISTDataModule
from lit_compress.datamodules.images import ImageDataModule
from lit_compress.modules import AlexNet, MobileNetV2, ShuffleNetV2
from lit_compress.modules.classifier import ImageClassifier
from lit_compress.quantization import Calibration
from lit_compress.trainer import Trainer

NETWORKS: dict[str, Any] = {
    "shufflenet_v2": ShuffleNetV2,
    "mobilenet_v2": MobileNetV2,
    "alexnet": AlexNet,
}
#: Number of calibration batches of 64 images, as in configs/quantize.yaml.
BATCHES = 64
#: Channels of the images of each data set.
CHANNELS = {"fashion_mnist": 1, "cifar10": 3}


def data_of(name: str, network: str, data_dir: str) -> ImageDataModule:
    """Return a data set with the settings of the packaged config."""
    size = 64 if network == "alexnet" else None
    if name == "cifar10":
        return CIFAR10DataModule(data_dir, image_size=size)
    return FashionMNISTDataModule(data_dir, image_size=size)


def convert(
    model: ImageClassifier,
    data: LightningDataModule,
    checkpoint: Path,
    to: str,
    calibration: Calibration,
) -> None:
    """Write the artefact of a checkpoint."""
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=BATCHES,
        callbacks=[PostTrainingQuantization(calibration=calibration, calibration_batches=BATCHES)],
    )
    trainer.quantize(model, datamodule=data, ckpt_path=str(checkpoint), dirpath=to)


def row(
    network: str,
    name: str,
    checkpoint: Path,
    data_dir: str,
    folder: str,
    calibration: Calibration,
) -> str:
    """Return one line of the table."""
    data = data_of(name, network, data_dir)
    model = NETWORKS[network](in_channels=CHANNELS[name])
    convert(model, data, checkpoint, folder, calibration)
    net = lit_compress.load(folder)
    data.setup("test")
    expected, found, labels = [], [], []
    with torch.no_grad():
        for pixels, truth in data.pixels("test"):
            expected.append(model.eval()(data.preprocess(pixels)).numpy())
            found.append(net(pixels))
            labels.append(truth.numpy())
    plain, int8 = np.concatenate(expected), np.concatenate(found)
    truth = np.concatenate(labels)
    accuracies = [float((scores.argmax(-1) == truth).mean()) for scores in (plain, int8)]
    agree = float((plain.argmax(-1) == int8.argmax(-1)).mean())
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    size = (Path(folder) / "model.onnx").stat().st_size / weights
    return (
        f"{network:14} {name:14} {accuracies[0]:8.4f} {accuracies[1]:8.4f} "
        f"{accuracies[1] - accuracies[0]:+8.4f} {agree:10.4f} {sqnr_db(plain, int8):8.1f} "
        f"{size:8.3f}x"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--calibration", default="minmax", choices=get_args(Calibration))
    words = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    lines = []
    for network in NETWORKS:
        for name in CHANNELS:
            run = Path(words.runs) / f"{network}_{name}" / "version_0" / "checkpoints"
            if not (run / "last.ckpt").is_file():
                lines.append(f"{network:14} {name:14} no checkpoint in {run}")
                continue
            with tempfile.TemporaryDirectory() as folder:
                artifact = f"{folder}/artifact"
                checkpoint = run / "last.ckpt"
                line = row(
                    network,
                    name,
                    checkpoint,
                    data_dir=words.data_dir,
                    folder=artifact,
                    calibration=words.calibration,
                )
                lines.append(line)
    print("network        data set          float     int8   change  agreement  SQNR dB     file")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
