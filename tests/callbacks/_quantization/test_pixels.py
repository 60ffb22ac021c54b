from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms as v1
from torchvision.transforms import v2

import lit_compress
from lit_compress.callbacks import CompressionReport, PostTrainingQuantization
from lit_compress.callbacks._quantization.pixels import Pixels, find_pixels
from lit_compress.callbacks._quantization.settings import Settings
from lit_compress.errors import InvalidArgumentError
from lit_compress.trainer import Trainer as VerbTrainer

MakeTrainer = Callable[..., Trainer]
pytestmark = pytest.mark.usefixtures("noise_of_two_inputs")


class Images(Dataset[Any]):
    """Images as Pillow's, with a transform: as torchvision's own data sets are."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform
        self.pixels = (stripes(32, 1).tensors[0].clamp(-1, 1) * 127 + 128).to(torch.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index, 0].numpy())), index % 4

    def loader(self) -> DataLoader[Any]:
        return DataLoader(Subset(self, range(32)), 16)


def scaled(*more: Any) -> v2.Compose:
    return v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), *more])


NORMALIZE = [0.4], [0.3]
TRANSFORMS = {
    "v1": v1.Compose([v1.ToTensor(), v1.Normalize(*NORMALIZE)]),
    "v2": v2.Compose([scaled(), v2.Normalize(*NORMALIZE)]),
    "in a sequence": torch.nn.Sequential(scaled(), v2.Normalize(*NORMALIZE)),
    "of pixels": v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32), v2.Normalize([120.0], [50.0])]
    ),
}


def found(data: Images, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Pixels:
    """Return what is found for a run whose validation data these are."""
    batches = [batch[0] for batch in data.loader()]
    network: Any = SimpleNamespace(inputs=batches, signature=SimpleNamespace(plain=True))
    module = "lit_compress.callbacks._quantization.pixels"
    monkeypatch.setattr(f"{module}.validation_loaders", lambda _: [data.loader()])
    monkeypatch.setattr(f"{module}.datamodule", lambda _: None)
    return find_pixels(Trainer(logger=False, barebones=True), network, Settings(**options))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_normalize_of_a_transform_is_put_into_the_file(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raw pixels were for datamodules with a hook that no other project has."""
    data = Images(TRANSFORMS[name])
    pixels = found(data, monkeypatch)
    assert torch.equal(torch.cat(list(pixels.inputs)), data.pixels)
    batches = torch.cat([batch[0] for batch in data.loader()])
    assert pixels.preprocess is not None
    torch.testing.assert_close(pixels.preprocess(data.pixels), batches)
    assert pixels.undone is not None
    assert torch.equal(pixels.undone.undo(batches)[0], data.pixels)
    assert pixels.why == "the file takes raw uint8 pixels, by the Normalize of the validation data"
    mean = pixels.normalization()["mean"]
    assert mean == [float(f"{120 / 255:.6g}")] if name == "of pixels" else mean == [0.4]


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (scaled(), "has no Normalize step"),
        (scaled(v2.GaussianBlur(3, (1, 1)), v2.Normalize(*NORMALIZE)), "not whole pixels after"),
        (scaled(v2.Normalize(*NORMALIZE), v2.Normalize(*NORMALIZE)), "has 2 Normalize steps"),
        (v2.Compose([scaled(), v2.Lambda(torch.flatten)]), "not a batch of images"),
    ],
)
def test_one_line_says_why_nothing_is_embedded(
    transform: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = found(Images(transform), monkeypatch)
    assert pixels.preprocess is None
    assert "the network's own inputs, not raw pixels, since" in pixels.why
    assert reason in pixels.why
    assert pixels.why.endswith("(mean=..., std=...) puts the normalisation into it")


def test_a_given_normalisation_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Images(lambda image: v1.functional.normalize(v1.functional.to_tensor(image), *NORMALIZE))
    pixels = found(data, monkeypatch, mean=(0.4,), std=(0.3,))
    assert pixels.normalization() == {"mean": [0.4], "std": [0.3]}
    assert torch.equal(torch.cat(list(pixels.inputs)), data.pixels)
    with pytest.raises(InvalidArgumentError, match=r"mean \[0.5\] and std \[0.3\] do not lead to"):
        found(data, monkeypatch, mean=(0.5,), std=(0.3,))
    with pytest.raises(InvalidArgumentError, match="one value for each channel"):
        found(data, monkeypatch, mean=(0.4, 0.4), std=(0.3, 0.3))
    assert found(data, monkeypatch, preprocess="none").preprocess is None


def test_names_for_other_classes_are_refused_before_the_training(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    quantizer = PostTrainingQuantization(dirpath=str(tmp_path / "b"), classes=["a", "b"])
    trainer = make_trainer(callbacks=[quantizer])
    with pytest.raises(InvalidArgumentError, match=r"classes has 2 names, and .* of shape \d+ x 4"):
        trainer.fit(ForeignModule(), loader(), loader(32))
    assert trainer.global_step == 0


class WithTest(ForeignModule):
    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())


def test_such_a_file_computes_the_same_and_is_timed_and_tested(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report took the network's inputs for the file's, and test --artifact too."""
    timed: list[Any] = []
    monkeypatch.setattr(
        "lit_compress.callbacks.report.time_variants",
        lambda runners, *_, **__: timed.append(runners["int8"]()) or {},
    )
    data, folder = Images(TRANSFORMS["v1"]), str(tmp_path / "a")
    quantizer = PostTrainingQuantization("my_acc", dirpath=folder, classes="abcd")
    module = WithTest()
    trainer = make_trainer(max_epochs=1, callbacks=[quantizer, CompressionReport(batch_size=3)])
    trainer.fit(module, data.loader(), data.loader())
    net = lit_compress.load(folder)
    assert (net.input_dtype, net.input_shape, net.classes) == (np.uint8, (1, 8, 8), tuple("abcd"))
    outputs, images = net(data.pixels.numpy()), torch.cat([batch[0] for batch in data.loader()])
    with torch.no_grad():
        expected = module.eval()(images).numpy()
    assert np.abs(outputs - expected).max() < 0.05 * np.abs(expected).max()
    hits = float((outputs.argmax(1) == np.arange(32) % 4).mean())
    assert net.card.variant("int8").metric.value == pytest.approx(hits)  # type: ignore[union-attr]
    assert np.array_equal(timed[0], net(data.pixels[:3].numpy()))
    verb = VerbTrainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    measured = verb.test(WithTest(), data.loader(), artifact=folder, verbose=False)
    assert measured[0]["test_acc"] == pytest.approx(hits)
    with pytest.raises(InvalidArgumentError, match="the data are not normalised so"):
        verb.test(WithTest(), loader(32), artifact=folder, verbose=False)
