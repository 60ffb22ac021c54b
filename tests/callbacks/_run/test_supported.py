from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
)
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch import Tensor, nn

from lit_compress import callbacks as offered
from lit_compress import scan
from lit_compress.callbacks import (
    BlockPruning,
    Compress,
    CompressionReport,
    FilterPruning,
    KnowledgeDistillation,
    MagnitudePruning,
    Overfitting,
    PostTrainingQuantization,
    QuantizationAwareTraining,
    RulePruning,
)
from lit_compress.callbacks._run.supported import check_run, package
from lit_compress.cli import main
from lit_compress.errors import InvalidArgumentError
from lit_compress.trainer import Trainer as VerbTrainer


class OfTheUser(FSDPStrategy):
    pass


def callbacks() -> list[Callback]:
    return [
        BlockPruning(0.5),
        Compress("my_acc"),
        CompressionReport(),
        FilterPruning(0.5),
        KnowledgeDistillation(),
        MagnitudePruning(0.5),
        Overfitting(),
        PostTrainingQuantization(),
        QuantizationAwareTraining(),
        RulePruning(target=0.5),
    ]


def test_all_callbacks_are_tried_here() -> None:
    assert [type(callback).__name__ for callback in callbacks()] == offered.__all__


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (FSDPStrategy, "FSDPStrategy,"),
        (ModelParallelStrategy, "ModelParallelStrategy,"),
        (DeepSpeedStrategy, "DeepSpeedStrategy,"),
        (OfTheUser, r"OfTheUser \(a FSDPStrategy\),"),
    ],
)
def test_sharded_strategies_are_refused_by_every_callback(
    kind: type, words: str, make_trainer: Callable[..., Trainer]
) -> None:
    """Three callbacks died after the training, in a copy of the module; a subclass was not seen."""
    trainer = make_trainer()
    # A real one needs several devices.
    trainer._accelerator_connector.strategy = kind.__new__(kind)
    for callback in callbacks():
        with pytest.raises(InvalidArgumentError, match=f"{type(callback).__name__}.*{words}"):
            callback.setup(trainer, ForeignModule(), "fit")
    check_run(callbacks()[0], trainer, "test")  # nothing is done in a test


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_that_give_nothing_back_are_refused_by_every_callback(
    method: Any, make_trainer: Callable[..., Trainer]
) -> None:
    """The artefact was written, and path, card and masks stayed empty in the parent process."""
    trainer = make_trainer()
    trainer.strategy._launcher = _MultiProcessingLauncher(trainer.strategy, start_method=method)
    for callback in callbacks():
        words = rf"^{type(callback).__name__} cannot run in spawned or forked.*use strategy ddp"
        with pytest.raises(InvalidArgumentError, match=words):
            callback.setup(trainer, ForeignModule(), "fit")


class Other(pytorch_lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(64, 4)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0].flatten(1)), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> None:
        return None


@pytest.mark.parametrize("callback", callbacks(), ids=lambda c: type(c).__name__)
def test_a_trainer_of_pytorch_lightning_is_told_what_to_import(
    callback: Callback, tmp_path: Path
) -> None:
    """Some callbacks died in a raw TypeError of the other package, and some checks saw nothing."""

    class OfTheUser(pytorch_lightning.Trainer):
        pass

    trainer = OfTheUser(
        max_epochs=3,
        accelerator="cpu",
        default_root_dir=tmp_path,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.raises(
        InvalidArgumentError,
        match=rf"{type(callback).__name__} .* is of pytorch_lightning: write `import lightning\.py",
    ):
        trainer.fit(Other(), loader(), loader())
    assert not list(tmp_path.iterdir())


def test_verbs_say_so_of_a_module_of_the_other_package() -> None:
    """A plain Trainer of Lightning looks at the module before any callback is called."""
    with pytest.raises(InvalidArgumentError, match=r"Other is a LightningModule of .*import light"):
        scan(Other(), loader())
    with pytest.raises(InvalidArgumentError, match="import lightning"):
        VerbTrainer(logger=False, accelerator="cpu").quantize(Other(), loader())  # type: ignore[arg-type]
    assert package(type("Mine", (Other,), {})) == "pytorch_lightning"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_command_line_says_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "import pytorch_lightning as pl\nclass Net(pl.LightningModule):\n    pass\n"
    (tmp_path / "of_a_user.py").write_text(lines)
    (tmp_path / "a.yaml").write_text("model: of_a_user.Net\ndata: DigitsDataModule\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["fit", "--config", str(tmp_path / "a.yaml")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: model: of_a_user.Net is of the package pytorch_lightning: write")


def test_one_device_is_fine(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    assert isinstance(trainer.strategy, SingleDeviceStrategy)
    check_run(callbacks()[0], trainer, "fit")
