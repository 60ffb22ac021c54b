"""The rows of the results table: how each network is trained, pruned and quantised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Folder of the parts that a row adds to the training of its dense network.
RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Row:
    """One network on one data set.

    Attributes:
        config: The packaged config, without ``.yaml``; the name of the row.
        epochs: Epochs of the dense network.
        lr: Its learning rate.
        more: Epochs of the compressed network, which begins as the dense one.
        more_lr: Its learning rate.
        narrow: Width of the dense network that the compressed one is compared with.
        words: Further words of the command line.
    """

    config: str
    epochs: int
    lr: float
    more: int
    more_lr: float
    narrow: float | None = None
    words: tuple[str, ...] = ()

    @property
    def stages(self) -> tuple[str, ...]:
        """The trainings of the row, in order."""
        return ("dense", "compressed", *(["narrow"] if self.narrow else []))

    def command(self, stage: str, dense: Path | None = None) -> list[str]:
        """Return the words behind ``lit-compress fit``.

        Args:
            stage: ``dense``, ``compressed``, or ``narrow``, which trains as long as both together.
            dense: Checkpoint of the dense network, for ``compressed``.
        """
        epochs = {"dense": self.epochs, "compressed": self.more}.get(stage, self.epochs + self.more)
        lr = self.more_lr if stage == "compressed" else self.lr
        words = ["--config", f"{self.config}.yaml"]
        if stage != "dense":
            name = f"{self.config}.yaml" if stage == "compressed" else "narrow.yaml"
            words += ["--config", str(RECIPES / name)]
        words += ["--data.batch_size", "128", "--trainer.max_epochs", str(epochs)]
        words += ["--model.optimizer.lr", str(lr), "--model.lr_scheduler.T_max", str(epochs)]
        words += self.words
        if stage == "narrow":
            words += ["--model.width", str(self.narrow)]
        if dense is not None:
            words += ["--model.init_from", str(dense)]
        return words


ROWS = {
    row.config: row
    for row in (
        Row("shufflenet_v2_fashion_mnist", 60, 0.1, 40, 0.05, 0.5, ("--data.crop", "2")),
        Row("mobilenet_v2_fashion_mnist", 60, 0.1, more=40, more_lr=0.05),
        Row("alexnet_fashion_mnist", 30, 0.02, more=20, more_lr=0.01),
        Row("shufflenet_v2_cifar10", 60, 0.1, 40, 0.05, words=("--model.stem", "cifar")),
        Row("alexnet_cifar10", 40, 0.02, more=30, more_lr=0.01),
        Row("mobilenet_v2_cifar10", 40, 0.1, 30, 0.05, words=("--model.stem", "cifar")),
    )
}
