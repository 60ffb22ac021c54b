"""The artefacts that are run: two networks of FashionMNIST, and the digits of the examples."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
#: Number of images whose classes are compared.
IMAGES = 1000
#: The batch size of the files of ExecuTorch and LiteRT: 20 calls.
BATCH = 50
#: By file format, what runs it.
RUNTIMES = {"onnx": "onnxruntime", "litert": "litert", "executorch": "executorch"}
#: By the name of a packaged config, the name in the table.
NETWORKS = {"mobilenet_v2": "MobileNetV2", "shufflenet_v2": "ShuffleNetV2"}


@dataclass(frozen=True)
class Artefact:
    """An artefact, and the images that it answers for.

    Attributes:
        name: Its name in the table.
        folder: The folder.
        images: The ``.npy`` file of the images.
        formats: The formats of its files.
    """

    name: str
    folder: Path
    images: Path
    formats: tuple[str, ...]


def digits(work: Path) -> Artefact:
    """Return the artefact of the examples, with the first images of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    from lit_compress.artifact import read_card
    from lit_compress.datamodules import DigitsDataModule

    folder = ROOT / "examples" / "digits_int8"
    if not read_card(folder).files or len(load_digits().target) < IMAGES:
        raise SystemExit(f"{folder} or the digits of scikit-learn are incomplete")
    data = DigitsDataModule()
    data.setup("fit")
    data.setup("test")
    pixels = [data.datasets[part].images.numpy() for part in ("train", "val", "test")]
    np.save(work / "digits.npy", np.concatenate(pixels)[:IMAGES])
    return Artefact("ShuffleNetV2, digits", folder, work / "digits.npy", ("onnx",))


def four_bits(artefact: Artefact, work: Path) -> Artefact:
    """Return an artefact whose weights are rounded to 4 bits: far from the float network."""
    from lit_compress.packed.folder import pack

    folder = work / f"{artefact.folder.name}-4-bits"
    shutil.rmtree(folder, ignore_errors=True)
    pack(artefact.folder, folder, bits=4)
    return Artefact(f"{artefact.name}, 4 bits", folder, artefact.images, ("onnx",))


def fashion_mnist(
    data_dir: Path, work: Path, formats: Sequence[str], keep: bool = False
) -> list[Artefact]:
    """Train the networks unless the folder has them, and convert them anew.

    Args:
        data_dir: Folder with FashionMNIST in torchvision's layout.
        work: Folder of checkpoints, artefacts and images.
        formats: The formats to write.
        keep: Whether to take the artefacts that the folder has.
    """
    sys.path.insert(0, str(ROOT / "experiments"))
    import check

    np.save(work / "fashion.npy", check.fashion_mnist(data_dir)[0][:IMAGES])
    found = []
    for network, name in NETWORKS.items():
        checkpoint = trained(network, data_dir, work)
        for weights in ("full", "reduced"):
            written = tuple(formats) if weights == "full" else ("onnx",)
            folder = work / f"{network}-{weights}"
            if not keep or not folder.is_dir():
                convert(network, checkpoint, data_dir, folder, weights, written)
            label = f"{name}, FashionMNIST" + ", reduced weights" * (weights == "reduced")
            found.append(Artefact(label, folder, work / "fashion.npy", written))
            if weights == "full":
                found.append(four_bits(found[-1], work))
    return found


def trained(network: str, data_dir: Path, work: Path) -> Path:
    """Return a checkpoint of a network after two short epochs (about 3 minutes)."""
    run = work / "runs" / f"{network}_fashion_mnist" / "run"
    checkpoint = run / "checkpoints" / "last.ckpt"
    if not checkpoint.is_file():
        _verb(
            ["fit", "--config", f"{network}_fashion_mnist.yaml"],
            {
                "data.data_dir": data_dir,
                "trainer.accelerator": "cpu",
                "trainer.max_epochs": 2,
                "trainer.limit_train_batches": 500,
                "trainer.logger.init_args.save_dir": work / "runs",
                "trainer.logger.init_args.version": "run",
                "model.optimizer": "torch.optim.Adam",
                "model.optimizer.init_args.lr": 0.002,
                "model.lr_scheduler.init_args.T_max": 2,
            },
        )
    return checkpoint


def convert(
    network: str,
    checkpoint: Path,
    data_dir: Path,
    folder: Path,
    weights: str,
    formats: Sequence[str],
) -> None:
    """Write the artefact of a checkpoint."""
    config = f"{network}_fashion_mnist.yaml"
    _verb(
        ["quantize", "--config", config, "--config", "quantize.yaml"],
        {
            "data.data_dir": data_dir,
            "trainer.accelerator": "cpu",
            "trainer.limit_val_batches": 20,
            "trainer.callbacks.weight_range": weights,
            "ckpt_path": checkpoint,
            "monitor": "val_acc",
            "formats": f"[{', '.join(formats)}]",
            "batch_sizes": f"[{BATCH}]",
            "dirpath": folder,
        },
    )


def _verb(words: list[str], options: dict[str, object]) -> None:
    from lit_compress.cli import main

    if main([*words, *(f"--{key}={value}" for key, value in options.items())]):
        raise SystemExit(f"lit-compress {' '.join(words)} failed")
