"""Print how the costs of int8 grow with the number of layers, and compare with ONNX Runtime's tool.

::

    python benchmarks/growth_int8.py [--networks resnet18 densenet121 ...] [--sizes 30 100]

Growth: CPU seconds of the calibration, of the noise of all layers, of the conversion and of the
ONNX export, on chains of layers and on networks of dense connectivity. A slope of 1 is linear in
the layers. A chain of 1,000 layers takes torch.export and the ONNX exporter a quarter of an hour,
so chains end at 300.

Comparison: the end of a fit with ``PostTrainingQuantization``, as a multiple of
``torch.onnx.export`` and ``quantize_static`` (per channel, on as many images). The former also
validates the file, compares outputs, and writes card and stored inputs.

Memory: tensors that are alive after ten conversions. And what a call of an int8 ResNet-50 takes for
an image. One run each.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from growth import Dense, chain, print_slopes, seconds, write
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import models
from typing_extensions import override

from lit_compress.callbacks import PostTrainingQuantization
from lit_compress.export.onnx import write_onnx
from lit_compress.quantization.convert import Calibrated
from lit_compress.runtimes.session import open_session

CHAINS, DENSE = (30, 100, 300), (12, 24, 48)
NETWORKS = ("resnet18", "resnet50", "densenet121", "vit_b_16")
#: Images that calibrate, and conversions after which living tensors are counted.
IMAGES, CONVERSIONS = 64, 10


class Classifier(LightningModule):
    """A network that is trained by plain steps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of the classes."""
        scores: Tensor = self.network(images)
        return scores

    @override
    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Return the loss."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    @override
    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=1e-4)


class Timed(PostTrainingQuantization):
    """Notes the seconds of the start and of the end of the fit."""

    start = end = 0.0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the conversion."""
        self.start = seconds(lambda: super(Timed, self).on_train_start(trainer, pl_module))

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Convert."""
        self.end = seconds(lambda: super(Timed, self).on_fit_end(trainer, pl_module))


def stages(network: nn.Module, images: Tensor) -> dict[str, float]:
    """Return the seconds of each stage of a conversion."""
    made: list[Calibrated] = []
    graphs: list[nn.Module] = []
    calibration = seconds(lambda: made.append(Calibrated(network, (images,), images)))
    with tempfile.TemporaryDirectory() as folder:
        return {
            "calibration": calibration,
            "noise": seconds(lambda: made[0].noise(images)),
            "conversion": seconds(lambda: graphs.append(made[0].convert())),
            "export": seconds(lambda: write_onnx(graphs[0], images, Path(folder) / "m.onnx")),
        }


def growth(
    title: str, build: Callable[[int], nn.Module], sizes: Sequence[int]
) -> dict[str, object]:
    """Print the seconds of each stage by the number of layers, and return them and the slopes."""
    images = torch.randn(8, 3, 32, 32)
    stages(build(4), images)  # loads what each first call loads
    costs = {size: stages(build(size), images) for size in sizes}
    return {"seconds": costs, "slopes": print_slopes(title, costs)}


def ours(network: nn.Module, images: Tensor) -> Timed:
    """Fit for one step, and return the callback with its seconds."""
    data = TensorDataset(images, torch.arange(len(images)) % 10)
    with tempfile.TemporaryDirectory() as folder:
        callback = Timed("val_acc", calibration_batches=IMAGES // 32, dirpath=f"{folder}/artifact")
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            limit_train_batches=1,
            callbacks=[callback],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(Classifier(network), DataLoader(data, 2), DataLoader(data, 32))
    return callback


def theirs(network: nn.Module, images: Tensor) -> float:
    """Return the seconds of ``torch.onnx.export`` and ``quantize_static``."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the package is not typed
        """Gives the images in batches."""

        def __init__(self) -> None:
            self.batches = iter(DataLoader(images, 32))  # type: ignore[arg-type]

        def get_next(self) -> dict[str, object] | None:
            """Return the next batch."""
            return next(({"x": batch.numpy()} for batch in self.batches), None)

    def convert(folder: Path) -> None:
        shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
        torch.onnx.export(
            network.eval(),
            (images[:2],),
            folder / "float.onnx",
            input_names=["x"],
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        quantize_static(
            folder / "float.onnx",
            folder / "int8.onnx",
            Reader(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )

    with tempfile.TemporaryDirectory() as folder:
        return seconds(lambda: convert(Path(folder)))


def compare(names: Sequence[str]) -> dict[str, object]:
    """Print a line for each network, and return the lines."""
    print("end of a fit with int8: CPU seconds, and as a multiple of export and quantize_static")
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    ours(small, torch.randn(IMAGES, 3, 8, 8))  # loads what each first call loads
    rows: dict[str, object] = {}
    for name in names:
        torch.manual_seed(0)
        network: nn.Module = models.get_model(name, weights=None, num_classes=10)
        side = 224 if name.startswith("vit") else 64
        images = torch.randn(IMAGES, 3, side, side)
        callback, other = ours(network, images), theirs(network, images)
        rows[name] = {"start": callback.start, "end": callback.end, "other": other}
        ratio = callback.end / other
        print(
            f"{name:14} start {callback.start:6.1f} s, end {callback.end:6.1f} s, other "
            f"{other:6.1f} s, end / other {ratio:5.2f}",
            flush=True,
        )
    return rows


def living() -> float:
    """Return the size of all tensors that are alive, in MiB."""
    gc.collect()
    found: list[Tensor] = [one for one in gc.get_objects() if type(one) in (Tensor, nn.Parameter)]
    return sum(tensor.numel() * tensor.element_size() for tensor in found) / 2**20


def kept() -> float:
    """Print and return the MiB of tensors that ten conversions leave."""

    def convert() -> None:
        layers = nn.Sequential(nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 10)).eval()
        inputs = torch.randn(32, 64)
        Calibrated(layers, (inputs,), inputs).convert()

    convert()
    before = living()
    for _ in range(CONVERSIONS):
        convert()
    left = living() - before
    print(f"tensors alive after {CONVERSIONS} conversions more: {left:.2f} MiB")
    return left


def per_image() -> float:
    """Print and return the seconds that an int8 ResNet-50 computes for one image of 224 pixels."""
    images = torch.randn(8, 3, 224, 224)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        network: nn.Module = models.resnet50(weights=None).eval()
        write_onnx(Calibrated(network, (images[:2],), images[:2]).convert(), images, path)
        session = open_session(path.read_bytes(), threads=1)
    name, array = session.get_inputs()[0].name, images.numpy()
    session.run(None, {name: array})
    took = seconds(lambda: session.run(None, {name: array})) / len(array)
    print(f"int8 resnet50: {1000 * took:.1f} ms of the processor for an image of 224 px")
    return took


def main() -> None:
    """Print the growth of the costs, the comparison, and what stays in memory."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(CHAINS))
    words = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("root").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    result: dict[str, object] = {"MiB alive": kept()}
    result["resnet50, seconds an image"] = per_image()
    result["chains"] = growth("chains", chain, words.sizes)
    result["dense connectivity"] = growth(
        "dense connectivity", lambda layers: Dense(layers).eval(), DENSE
    )
    result["quantize_static"] = compare(words.networks)
    write("int8", result)


if __name__ == "__main__":
    main()
