"""Fixtures: a LightningModule that is not ours, small data, and files laid out as torchvision's."""

from __future__ import annotations

import copy
import gzip
import hashlib
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_compress.callbacks import PostTrainingQuantization, QuantizationAwareTraining
from lit_compress.measure import compare
from lit_compress.pruning import ChannelGraph, analyse, apply, make_plan
from lit_compress.pruning.channels.tracing.modules import named_tensors

# A busy machine is no fault: a first example may wait for another process.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

#: Programs that tests start, which no doctest is looked for in.
collect_ignore_glob = ["*_program.py", "*make_golden.py", "*make_version.py"]


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name bytes by their argument: a zip holds the time, so its content is no name of a test."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session", autouse=True)
def a_cache_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests write nothing into the cache folder of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def exporter_functions_are_listed_once() -> Iterator[None]:
    """Keep the exporter's lists of functions: to make them is most of a small export."""
    from torch._export import utils
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    make = ONNXRegistry.from_torchlib
    made: dict[Any, ONNXRegistry] = {}

    def listed(**options: Any) -> ONNXRegistry:
        key = tuple(options.items())
        if key not in made:
            made[key] = make(**options)
        found = copy.copy(made[key])
        found.functions = {name: list(metas) for name, metas in made[key].functions.items()}
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(listed))
        patch.setattr(utils, "_materialize_cpp_cia_ops", cache(utils._materialize_cpp_cia_ops))
        yield


@pytest.fixture(scope="session", autouse=True)
def variants_are_timed_briefly() -> Iterator[None]:
    """Time variants of a report in as many rounds, each call once: a second less each."""
    brief = partial(compare, warmup=0.0, slice_seconds=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_compress.callbacks._report.variants.compare", brief)
        yield


@pytest.fixture(scope="module")
def shallow() -> Iterator[None]:
    """Build ShuffleNetV2 of four blocks, one of them without stride, not of sixteen.

    To export sixteen takes half a minute; ``make quickstart`` and the slow tests do it.
    """
    from torchvision import models

    def build(repeats: list[int], *arguments: Any) -> nn.Module:
        return network([1, 2, 1], *arguments)

    network = models.ShuffleNetV2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "ShuffleNetV2", build)
        yield


@pytest.fixture(scope="module")
def noise_of_two_inputs() -> Iterator[None]:
    """Measure the noise of layers on two inputs: enough where a test is about something else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_compress.quantization.layer_noise.sources.BUDGET", 0)
        yield


@pytest.fixture
def no_trial_conversion(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert at the end of a fit alone: half of the time where a test is about the file.

    Tests marked ``trial_conversion`` convert before the training as well, as users' fits do.
    """
    if request.node.get_closest_marker("trial_conversion") is None:
        monkeypatch.setattr(PostTrainingQuantization, "on_train_start", lambda *_: None)
        monkeypatch.setattr(QuantizationAwareTraining, "_try_out", lambda *_: None)


class ForeignModule(LightningModule):
    """A user's own module: nothing of lit-compress in it, two logged keys, plain tensors."""

    def __init__(self, lr: float = 0.05) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 4),
        )
        self.lr = lr

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        scores = self(batch[0])
        self.log("my_loss", nn.functional.cross_entropy(scores, batch[1]))
        self.log("my_acc", (scores.argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9, weight_decay=1e-2)


class Reverse(torch.autograd.Function):
    """Turns gradients round, as adversarial training does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class Reversed(ForeignModule):
    """Has a gradient of its own, which no graph has."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net[3:](Reverse.apply(self.net[:3](x)))
        return out


class ManualModule(ForeignModule):
    """Manual optimization with two optimizers."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.step()

    def configure_optimizers(self) -> Any:
        convs = [p for n, p in self.named_parameters() if not n.startswith("net.7")]
        head = self.net[7].parameters()
        return torch.optim.AdamW(convs), torch.optim.SGD(head, 0.1, momentum=0.9)


def stripes(count: int, seed: int) -> TensorDataset:
    """Images of four kinds of stripe in noise: a task that a small net learns in a few epochs."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    ramp = torch.arange(8.0)
    row, column = torch.meshgrid(ramp, ramp, indexing="ij")
    kinds = torch.stack([row, column, row + column, row - column])
    images = torch.sin(kinds[labels] * 1.5)[:, None]
    return TensorDataset(images + 0.3 * torch.randn(images.shape, generator=generator), labels)


def loader(count: int = 64, seed: int = 0, batch_size: int = 16) -> DataLoader:
    return DataLoader(stripes(count, seed), batch_size=batch_size)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Networks had other weights with each order of the tests, and one in many missed a bound."""
    seed_everything(0, verbose=False)


@pytest.fixture
def foreign() -> ForeignModule:
    seed_everything(0, verbose=False)
    return ForeignModule()


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    def make(**options: Any) -> Trainer:
        defaults = {
            "default_root_dir": tmp_path,
            "accelerator": "cpu",
            "max_epochs": 3,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        return Trainer(**(defaults | options))

    return make


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Put back what a fit changes for the whole process."""
    environment, threads = dict(os.environ), torch.get_num_threads()
    torch.set_num_threads(1)  # small nets: more threads only wait for each other
    yield
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def fashion_mnist_dir(tmp_path: Path) -> Path:
    """A folder with 200 training and 50 test images in FashionMNIST's files."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for prefix, count in (("train", 200), ("t10k", 50)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
            head = struct.pack(f">{1 + array.ndim}i", magic, *array.shape)
            path = raw / f"{prefix}-{kind}-ubyte"
            path.write_bytes(head + array.tobytes())
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(head + array.tobytes()))
    return tmp_path


@pytest.fixture
def cifar10_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 200 training and 40 test images in CIFAR-10's files, whose md5 is patched."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    random = np.random.default_rng(0)

    def write(name: str, content: dict[str, Any]) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    def batch(name: str) -> list[str]:
        pixels = random.integers(0, 256, (40, 3072), dtype=np.uint8)
        labels = [index % 10 for index in range(40)]
        return [name, write(name, {"data": pixels, "labels": labels})]

    train = [batch(f"data_batch_{index}") for index in range(1, 6)]
    names = {"label_names": [str(index) for index in range(10)]}
    meta = {**CIFAR10.meta, "md5": write("batches.meta", names)}
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch")])
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return tmp_path


Operation = Callable[[nn.Module, Tensor], Tensor]


class Between(nn.Module):
    """A conv, an operation that may use further layers, and a linear layer over all it gives."""

    def __init__(self, operation: Operation, width: int, **more: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in more.items():
            setattr(self, name, layer)
        self.first = nn.Conv2d(3, width, 1)
        self.operation = operation
        self.last = nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.operation(self, self.first(x)).flatten(1))


@pytest.fixture
def between() -> Callable[..., ChannelGraph]:
    """Build, analyse, remove half of each group, and compare with zeros in what would read it."""

    @torch.no_grad()
    def check(operation: Operation, width: int = 8, **more: nn.Module) -> ChannelGraph:
        torch.manual_seed(0)
        net = Between(operation, width, **more).double().eval()
        x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
        net(x)
        graph = analyse(net, x)
        selected = [
            n for g in graph.groups for n in g.channels[: min(graph.removable(g), width // 2)]
        ]
        plan = make_plan(graph, selected)
        twin = copy.deepcopy(net)
        for cut in plan.cuts:
            if graph.roles[cut.tensor, cut.dim] == "input":
                index = torch.tensor(sorted(set(range(cut.size)) - set(cut.keep)))
                named_tensors(twin)[cut.tensor].data.index_fill_(cut.dim, index, 0)
        apply(plan, net)
        torch.testing.assert_close(net(x), twin(x))
        return graph

    return check


@pytest.fixture(scope="session")
def two_int8_layers() -> bytes:
    """An ONNX file of two convolutions whose weights have one zero point, and one scale."""
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    stored = {
        name: draw.integers(-127, 128, (4, 4, 3, 3)).astype(np.int8) for name in ("one", "two")
    }
    stored |= {"zero": np.zeros(4, np.int8), "scale": np.full(4, 0.01, np.float32)}
    stored |= {"step": np.float32(0.02), "low": np.uint8(0)}
    nodes = []
    for place, (name, source) in enumerate([("one", "x"), ("two", "y0")]):
        dequantized = {"axis": 0}
        nodes += [
            helper.make_node("QuantizeLinear", [source, "step", "low"], [f"q{place}"]),
            helper.make_node("DequantizeLinear", [f"q{place}", "step", "low"], [f"d{place}"]),
            helper.make_node(
                "DequantizeLinear", [name, "scale", "zero"], [f"w{place}"], **dequantized
            ),
            helper.make_node("Conv", [f"d{place}", f"w{place}"], [f"y{place}"]),
        ]
    shape = [None, 4, None, None]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y1", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())
