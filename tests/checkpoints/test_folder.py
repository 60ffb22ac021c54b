from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger

from lit_compress import Schedule
from lit_compress.artifact import read_card
from lit_compress.callbacks import CompressionReport, MagnitudePruning
from lit_compress.checkpoints.folder import (
    artifact_dir,
    is_artifact,
    release,
    run_files,
    run_folder,
    trained_weights,
)
from lit_compress.errors import ArtifactError

MakeTrainer = Callable[..., Trainer]


class OwnLogger(Logger):
    """A logger whose folder is one for all runs, as MLflow's and W&B's are."""

    def __init__(self, name: str | None, version: str | int | None, folder: Path | None) -> None:
        super().__init__()
        self._name, self._version, self._folder = name, version, folder

    @property
    def name(self) -> str | None:
        return self._name

    @property
    def version(self) -> str | int | None:
        return self._version

    @property
    def save_dir(self) -> str | None:
        return None if self._folder is None else str(self._folder)

    def log_metrics(self, *_: object, **__: object) -> None:
        pass

    def log_hyperparams(self, *_: object, **__: object) -> None:
        pass


def test_the_folder_is_as_given_or_in_the_log_folder(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    logger = CSVLogger(tmp_path, "runs", "one")
    assert artifact_dir(make_trainer(), "there") == Path("there")
    assert artifact_dir(make_trainer(), None) == tmp_path / "artifact"
    inside = tmp_path / "runs" / "one" / "artifact"
    assert artifact_dir(make_trainer(logger=logger), None) == inside
    assert artifact_dir(make_trainer(logger=logger), None) == inside  # its folder is the run's


@pytest.mark.parametrize(
    ("name", "version"), [("exp", "abc"), ("exp", 3), ("exp", None), (None, None)]
)
@pytest.mark.parametrize("own_folder", [True, False])
def test_other_loggers_have_the_folder_of_their_checkpoints(
    name: str | None,
    version: str | int | None,
    own_folder: bool,
    make_trainer: MakeTrainer,
    tmp_path: Path,
) -> None:
    """Under MLflow and W&B every run had the same folder: the second replaced the artefact."""
    logger = OwnLogger(name, version, tmp_path / "logs" if own_folder else None)
    trainer = make_trainer(logger=logger)
    found = artifact_dir(trainer, None)
    keep = ModelCheckpoint()
    if name is not None and version is not None:
        keep.setup(trainer, ForeignModule(), "fit")
        assert found == Path(keep.dirpath or "").parent / "artifact"
    else:
        root = tmp_path / "logs" if own_folder else tmp_path
        assert found == root.joinpath(*filter(None, [name])) / "artifact"


def test_no_two_runs_have_the_same_files(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    first, second, third = make_trainer(), make_trainer(), make_trainer()
    assert run_files(first).artifact == tmp_path / "artifact"
    assert run_files(second).artifact == tmp_path / "artifact-v1"  # at the same time
    assert run_files(second).dense == tmp_path / "dense-v1.safetensors"
    assert run_files(first) == run_files(first)  # a second fit of the Trainer
    release(first)
    assert not (tmp_path / "artifact").exists()
    assert run_files(third).artifact == tmp_path / "artifact"
    run_files(third).dense.touch()  # a run that was killed after its first pruning step
    release(third)
    assert run_files(first).artifact == tmp_path / "artifact-v2"


@pytest.mark.parametrize("left", ["artifact/card.json", "artifact-trained.safetensors"])
def test_what_a_run_has_written_stays_its_own(
    left: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    first = make_trainer()
    files = run_files(first)
    assert trained_weights(files.artifact).name == "artifact-trained.safetensors"
    (tmp_path / left).touch()
    release(first)
    assert run_files(first) == files
    assert is_artifact(files.artifact) == left.endswith("card.json")
    assert run_files(make_trainer()).artifact == tmp_path / "artifact-v1"


def test_a_folder_that_cannot_be_made_is_refused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot be written"):
        run_files(make_trainer(default_root_dir=tmp_path / "file"))
    assert artifact_dir(make_trainer(fast_dev_run=True), None) == tmp_path / "artifact"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
def test_a_resumed_run_finds_its_dense_network_and_no_other(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a logger, the next run replaced the file, and a resumed one read its weights."""
    monkeypatch.setattr("lit_compress.callbacks.report.time_variants", lambda *_, **__: {})

    def run(first: int, epochs: int, ckpt_path: str | None = None) -> CompressionReport:
        keep = ModelCheckpoint(tmp_path / f"c{first}", "last", save_top_k=1)
        report = CompressionReport("my_acc")
        callbacks = [MagnitudePruning(0.5, Schedule(first, 1)), report, keep]
        trainer = make_trainer(max_epochs=epochs, callbacks=callbacks, enable_checkpointing=True)
        trainer.fit(ForeignModule(), loader(), loader(32, 1), ckpt_path=ckpt_path)
        return report

    first = run(1, 3)
    run(0, 3)
    assert sorted(path.name for path in tmp_path.glob("*a*")) == [
        *("artifact", "artifact-v1", "dense-v1.safetensors", "dense.safetensors"),
    ]
    assert read_card(tmp_path / "artifact") == first.card
    resumed = run(1, 4, str(tmp_path / "c1" / "last.ckpt"))
    assert first.card
    assert resumed.card
    assert resumed.card.variant("dense").metric == first.card.variant("dense").metric
    (tmp_path / "dense.safetensors").write_bytes((tmp_path / "dense-v1.safetensors").read_bytes())
    with pytest.warns(UserWarning, match="another run has replaced"):
        changed = run(1, 4, str(tmp_path / "c1" / "last.ckpt"))
    assert changed.card
    assert [variant.name for variant in changed.card.variants] == ["pruned"]


def test_the_folder_of_a_run_is_named_and_not_made(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    logger = CSVLogger(tmp_path / "logs", "name")
    assert run_folder(make_trainer(logger=logger)) == tmp_path / "logs" / "name" / "version_0"
    own = OwnLogger("name", 3, tmp_path / "own")
    assert run_folder(make_trainer(logger=own)) == tmp_path / "own" / "name" / "version_3"
    assert run_folder(make_trainer()) == tmp_path
    assert list(tmp_path.iterdir()) == []
