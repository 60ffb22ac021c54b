"""Make ``examples/digits_int8``: the int8 file and the picture of README's four lines.

It is the artefact of the quickstart, without the float network. About a minute on two cores:
``python examples/make_digits_int8.py``.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from lit_compress.artifact import read_card, write_card
from lit_compress.cli import main
from lit_compress.datamodules import DigitsDataModule

TARGET = Path(__file__).parent / "digits_int8"
KEPT = ("model.onnx", "replay.npz")


def make() -> None:
    """Run the quickstart, and keep what runs its file."""
    with TemporaryDirectory() as folder:
        words = [
            "fit",
            "--config",
            "quickstart.yaml",
            f"--trainer.logger.init_args.save_dir={folder}",
        ]
        if main(words):
            raise SystemExit("the quickstart failed")
        (artifact,) = Path(folder).rglob("artifact")
        card = read_card(artifact)
        TARGET.mkdir(exist_ok=True)
        for name in KEPT:
            shutil.copy(artifact / name, TARGET / name)
        files = {name: card.files[name] for name in KEPT}
        variants = tuple(v for v in card.variants if v.name == "int8")
        write_card(TARGET, replace(card, files=files, history=(), variants=variants))
    data = DigitsDataModule()
    data.setup("test")
    images, labels = data.datasets["test"].images, data.datasets["test"].labels
    seven = images[labels.tolist().index(7)]
    Image.fromarray(seven[0].numpy()).save(TARGET / "seven.png")


if __name__ == "__main__":
    make()
