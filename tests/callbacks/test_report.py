from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import lit_compress
from lit_compress import Schedule
from lit_compress.artifact import Card, read_card, sqnr_db
from lit_compress.artifact.history import with_layers
from lit_compress.callbacks import (
    CompressionReport,
    MagnitudePruning,
    PostTrainingQuantization,
)
from lit_compress.errors import ArtifactError, CheckpointError, InvalidArgumentError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[ForeignModule, CompressionReport, Path]:
    """One fit with everything; the report comes first in the list, and still has the last word."""
    folder = tmp_path_factory.mktemp("run")
    seed_everything(0, verbose=False)
    module, report = ForeignModule(), CompressionReport(batch_size=2)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=8,
        callbacks=[
            report,
            MagnitudePruning(0.5, Schedule(3, 5)),
            PostTrainingQuantization("my_acc"),
            ModelCheckpoint(folder / "ckpt", "{epoch}", save_top_k=-1),
        ],
        logger=TensorBoardLogger(folder, "runs", "one"),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader(128), loader(96, 1))
    return module, report, folder


def test_every_variant_is_on_the_card_and_timed_in_turn(run: Any) -> None:
    _, report, folder = run
    card = read_card(folder / "runs" / "one" / "artifact")
    assert card == report.card
    assert [v.name for v in card.variants] == ["dense", "pruned", "pruned onnx", "int8"]
    engines = [variant.latency and variant.latency.engine for variant in card.variants]
    assert engines == ["pytorch", "pytorch", "onnxruntime", "onnxruntime"]
    int8 = card.variant("int8").latency
    assert int8
    assert [ratio.over for ratio in int8.ratios] == ["dense", "pruned onnx"]
    assert (int8.batch, int8.threads) == (2, 1)
    assert all(v.latency and v.latency.seconds > 0 and v.bytes for v in card.variants)


def test_dense_is_the_network_just_before_the_first_pruning(run: Any) -> None:
    _, report, folder = run
    dense = report.card.variant("dense")
    module = ForeignModule()
    content = torch.load(folder / "ckpt" / "epoch=2.ckpt", weights_only=True)
    module.load_state_dict(content["state_dict"])
    images, labels = stripes(96, 1).tensors
    with torch.no_grad():
        accuracy = (module.eval()(images).argmax(-1) == labels).float().mean()
    assert dense.metric.value == pytest.approx(float(accuracy))
    assert dense.epoch == 3
    assert dense.note == "after 3 epochs of 8, just before the first pruning"
    assert dense.nonzero == dense.parameters
    assert report.card.variant("pruned").nonzero < dense.nonzero


def test_tensorboard_has_the_figures_and_the_table(run: Any) -> None:
    _, _, folder = run
    events = EventAccumulator(str(folder / "runs" / "one"), size_guidance={"histograms": 0})
    events.Reload()
    tags = events.Tags()
    shares = [scalar.value for scalar in events.Scalars("compress/reached")]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(0.5, abs=0.001)
    assert {"compress/epoch_seconds", "compress/channels/net.0"} <= set(tags["scalars"])
    assert "compress/card/text_summary" in tags["tensors"]
    assert "custom_scalars__config__" in tags["tensors"]
    layout = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert rb"compress/channels/.*" in layout
    assert rb"my_acc" in layout
    assert len(events.Histograms("compress/weights/net.0")) == 2
    settings = EventAccumulator(str(folder / "runs" / "one" / "compress"))
    settings.Reload()
    stored = settings.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"int8 my_acc" in stored
    assert b"MagnitudePruning target" in stored


def test_no_chart_of_tensorboard_has_one_dot(run: Any) -> None:
    """25 of its charts were a single dot: the numbers of the card."""
    _, _, folder = run
    events = EventAccumulator(str(folder / "runs" / "one"))
    events.Reload()
    assert not [tag for tag in events.Tags()["scalars"] if len(events.Scalars(tag)) < 2]


def test_the_card_knows_every_epoch(run: Any) -> None:
    module, report, _ = run
    history = report.card.history
    assert [epoch.epoch for epoch in history] == list(range(8))
    assert [epoch.pruned for epoch in history] == [e in (3, 4, 5) for e in range(8)]
    assert [epoch.layers is None for epoch in history] == [e in (1, 2, 6, 7) for e in range(8)]
    last, weight = with_layers(history)[-1].layers, module.net[0].weight
    assert last.channels["net.0"] == int(weight.flatten(1).any(1).sum())
    assert last.weights["net.0"] == int(weight.count_nonzero()) < weight.numel()
    assert report.card.unpruned == history[0].layers
    assert history[-1].reached[0] == pytest.approx(0.5, abs=0.001)
    assert history[0].metric != history[-1].metric
    assert all(epoch.seconds > 0 for epoch in history)


def test_the_table_is_printed_after_the_fit(
    foreign: ForeignModule,
    make_trainer: Callable[..., Trainer],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = CompressionReport("my_acc", dirpath=str(tmp_path / "a"))
    make_trainer(callbacks=[report]).fit(foreign, loader(), loader(32, 1))
    printed = capsys.readouterr().out
    assert "\ndense " in printed
    assert "32 val images" in printed


def test_without_quantisation_the_report_writes_the_folder(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    report = CompressionReport("my_acc", dirpath=str(tmp_path / "a"))
    callbacks = [MagnitudePruning(0.5, Schedule(shape="one_shot")), report]
    make_trainer(callbacks=callbacks, logger=CSVLogger(tmp_path)).fit(
        foreign, loader(), loader(32, 1)
    )
    card = read_card(tmp_path / "a")
    assert [variant.name for variant in card.variants] == ["dense", "pruned"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["card.json", "model.safetensors"]
    note = card.variant("dense").note
    assert note
    assert note.startswith("the weights that the fit began with")


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")  # resumed where it was
def test_the_dense_snapshot_survives_a_resume(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    def fit(epochs: int, ckpt_path: Path | None) -> CompressionReport:
        seed_everything(0, verbose=False)
        report = CompressionReport("my_acc", dirpath=str(tmp_path / "a"))
        callbacks = [
            MagnitudePruning(0.5, Schedule(1, 2)),
            report,
            ModelCheckpoint(tmp_path / "ckpt", "{epoch}", save_top_k=-1),
        ]
        trainer = make_trainer(max_epochs=epochs, callbacks=callbacks, enable_checkpointing=True)
        trainer.fit(ForeignModule(), loader(), loader(32, 1), ckpt_path=ckpt_path)
        return report

    whole = fit(4, None).card
    resumed = fit(5, tmp_path / "ckpt" / "epoch=2.ckpt").card
    assert whole
    assert resumed
    assert resumed.variant("dense").metric == whole.variant("dense").metric
    assert resumed.variant("dense").epoch == 1
    assert [epoch.epoch for epoch in resumed.history] == list(range(5))
    kept = [replace(epoch, seconds=0) for epoch in resumed.history[:3]]
    assert kept == [replace(epoch, seconds=0) for epoch in whole.history[:3]]
    (tmp_path / "dense.safetensors").unlink()
    with pytest.warns(UserWarning, match="dense network is not in the report"):
        without = fit(5, tmp_path / "ckpt" / "epoch=3.ckpt").card
    assert without
    assert [variant.name for variant in without.variants] == ["pruned"]


def test_a_module_that_cannot_be_reported_on_is_told_before_training(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="not an artefact"):
        make_trainer(callbacks=[CompressionReport(dirpath=str(tmp_path))]).fit(foreign, loader())
    with pytest.raises(InvalidArgumentError, match="batch_size and threads must be at least 1"):
        CompressionReport(threads=0)


def test_a_fit_that_trains_nothing_changes_no_file(
    make_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second fit at the end of the epochs called the pruned network "dense"."""
    monkeypatch.setattr("lit_compress.callbacks.report.time_variants", lambda *_, **__: {})
    seed_everything(0, verbose=False)
    report = CompressionReport("my_acc")
    pruning = MagnitudePruning(0.5, Schedule(shape="one_shot"))
    trainer = make_trainer(max_epochs=2, callbacks=[pruning, report])
    module = ForeignModule()

    def fit() -> tuple[dict[Path, bytes], Card | None]:
        trainer.fit(module, loader(), loader(32, 1))
        files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        return files, report.card

    files, card = fit()
    assert card
    assert fit() == (files, card)
    trainer.fit_loop.max_epochs = 3
    after, changed = fit()
    assert after.keys() == files.keys()  # in the same folder, with the same dense network
    assert after[tmp_path / "dense.safetensors"] == files[tmp_path / "dense.safetensors"]
    assert changed
    assert changed.variant("dense").metric == card.variant("dense").metric
    assert [v.epoch for v in changed.variants if v.name in ("dense", "pruned")] == [0, 3]


def test_dense_is_the_baseline_where_one_is_named(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """The dense network had trained for a third of the epochs of the pruned one."""
    alone = ForeignModule()
    keep = ModelCheckpoint(tmp_path, "alone")
    make_trainer(max_epochs=4, callbacks=[keep], enable_checkpointing=True).fit(
        alone, loader(128), loader(96, 1)
    )
    baseline = str(tmp_path / "alone.ckpt")
    report = CompressionReport("my_acc", dirpath=str(tmp_path / "a"), baseline=baseline)
    trainer = make_trainer(max_epochs=4, callbacks=[MagnitudePruning(0.5, Schedule(1, 2)), report])
    trainer.fit(ForeignModule(), loader(128), loader(96, 1))
    images, labels = stripes(96, 1).tensors
    with torch.no_grad():
        accuracy = (alone.eval()(images).argmax(-1) == labels).float().mean()
    assert report.card
    dense = report.card.variant("dense")
    assert dense.metric
    assert dense.metric.value == pytest.approx(float(accuracy))
    assert (dense.epoch, dense.note) == (4, "trained on its own for 4 epochs")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "baseline: there is no file"),
        ({"state_dict": {"net.0.weight": torch.zeros(3)}}, "baseline: the weights of .* are not"),
    ],
)
def test_a_baseline_that_does_not_fit_is_refused_before_training(
    content: dict[str, Any] | None,
    message: str,
    make_trainer: Callable[..., Trainer],
    tmp_path: Path,
) -> None:
    path = tmp_path / "b.ckpt"
    if content is not None:
        torch.save(content, path)
    report = CompressionReport("my_acc", dirpath=str(tmp_path / "a"), baseline=str(path))
    trainer = make_trainer(callbacks=[report])
    with pytest.raises(CheckpointError, match=message):
        trainer.fit(ForeignModule(), loader(), loader(32, 1))
    assert trainer.global_step == 0


def test_the_float_file_is_kept_and_loads(run: Any) -> None:
    """It was made to be timed, and deleted, also where it was the faster one."""
    module, report, folder = run
    artifact = folder / "runs" / "one" / "artifact"
    images = stripes(96, 1).tensors[0]
    with torch.no_grad():
        expected = module.eval()(images).numpy()
    net = lit_compress.load(artifact, weights="fp32")
    assert sqnr_db(expected, net(images.numpy())) > 90
    variant = report.card.variant("pruned onnx")
    assert variant.bytes == (artifact / variant.file).stat().st_size
    assert variant.bytes > report.card.variant("int8").bytes
    with pytest.raises(InvalidArgumentError, match="'int8' or 'fp32', got 'fp16'"):
        lit_compress.load(artifact, weights="fp16")  # type: ignore[arg-type]


def test_the_figures_are_shown(run: Any) -> None:
    pytest.importorskip("matplotlib")
    _, _, folder = run
    events = EventAccumulator(str(folder / "runs" / "one"))
    events.Reload()
    shown = {"compress/metric_over_epochs", "compress/kept_channels", "compress/sqnr_by_layer"}
    assert shown <= set(events.Tags()["images"])


def test_confusion_is_that_of_the_answers(run: Any) -> None:
    module, report, _ = run
    images, labels = stripes(96, 1).tensors
    with torch.no_grad():
        answers = module.eval()(images).argmax(-1)
    counts = torch.zeros(4, 4, dtype=torch.int64)
    for label, answer in zip(labels, answers, strict=True):
        counts[label, answer] += 1
    metric = report.card.variant("pruned").metric
    assert metric
    assert torch.tensor(metric.confusion).equal(counts)
