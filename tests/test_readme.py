"""The README's Python runs as it stands, on a module that is not ours."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Trainer
from PIL import Image

import lit_compress
from lit_compress.callbacks import PostTrainingQuantization
from lit_compress.datamodules import Preprocess
from lit_compress.datamodules.images import ImageDataModule, PixelDataset

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")


class Model(ForeignModule):
    def log(self, name: str, *args: object, **options: object) -> None:  # type: ignore[override]
        super().log(name.replace("my_", "val_"), *args, **options)  # type: ignore[arg-type]


def test_the_snippet_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    snippet, outlook, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {"model": Model(), "train_loader": loader(64), "val_loader": loader(32, 1)}
    names["images"] = stripes(2, 2).tensors[0].numpy()  # type: ignore[assignment]
    exec(compile(snippet, "README.md", "exec"), names)  # noqa: S102 - our own text
    printed = capsys.readouterr().out
    assert re.search(r"Metric\(name='val_acc'.*\) \[\[.*\n.*\]\]", printed)
    names |= {"model": Model(), "images": stripes(2, 2).tensors[0]}
    exec(compile(outlook, "README.md", "exec"), names)  # noqa: S102 - our own text
    assert re.search(r"parameters: 1,016 to \d+ \(5", capsys.readouterr().out)


class Stripes(ImageDataModule):
    """Raw pixels of four kinds of stripe."""

    classes = ("across", "down", "falling", "rising")

    def __init__(self) -> None:
        super().__init__(batch_size=16)
        self.preprocess = Preprocess([0.5], [0.25])

    def read(self, train: bool) -> PixelDataset:
        images, labels = stripes(160, int(train)).tensors
        return PixelDataset((images.clamp(-1, 1) * 127 + 128).to(torch.uint8), labels)


def test_four_lines_classify_a_png(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = Stripes()
    callback = PostTrainingQuantization(dirpath="artifact")
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=8, callbacks=[callback], **quiet)
    trainer.fit(ForeignModule(), data)
    pixels, labels = data.datasets["val"].images.numpy(), data.datasets["val"].labels.numpy()
    capsys.readouterr()
    lines = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[-1]
    assert len(lines.splitlines()) == 4
    shown = []
    for image in pixels[:8]:
        Image.fromarray(image[0]).save("shoe.png")
        names = {"lit_compress": lit_compress, "np": np, "Image": Image}
        exec(compile(lines, "README.md", "exec"), names)  # noqa: S102 - our own text
        shown.append(capsys.readouterr().out.strip())
    assert sum(a == data.classes[b] for a, b in zip(shown, labels, strict=False)) >= 6


def test_every_packaged_config_it_names_is_there() -> None:
    configs = Path(__file__).parent.parent / "lit_compress" / "configs"
    named = set(re.findall(r"--config (\w+\.yaml)", README))
    assert len(named) >= 4
    assert all((configs / name).is_file() for name in named)


def test_every_measured_figure_is_filled_in() -> None:
    assert not re.findall(r"\b[A-Z]+_(?:TABLE|FIGURES|ACC)\b", README)
