import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import ForeignModule, loader, stripes
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import Compose, Normalize

import lit_compress
from lit_compress import Schedule
from lit_compress.artifact import read_card, sqnr_db
from lit_compress.callbacks import CompressionReport, MagnitudePruning, PostTrainingQuantization
from lit_compress.checkpoints.saved_weights import load_saved
from lit_compress.datamodules import DigitsDataModule, Preprocess
from lit_compress.datamodules.images import ImageDataModule, PixelDataset
from lit_compress.errors import (
    AccuracyError,
    ArtifactError,
    CalibrationError,
    CheckpointError,
    ExportError,
    InvalidArgumentError,
    PatternError,
)
from lit_compress.runtimes.processor import lacks_vnni

pytestmark = pytest.mark.usefixtures("no_trial_conversion")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[ForeignModule, Trainer, Path]:
    """One fit of a module that is not ours, pruned and quantised."""
    folder = tmp_path_factory.mktemp("run")
    seed_everything(0, verbose=False)
    module = ForeignModule()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=12,
        callbacks=[
            MagnitudePruning(0.5, Schedule(2, 6)),
            PostTrainingQuantization("my_acc", dirpath=str(folder / "artifact")),
        ],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader(256), loader(96, 1))
    return module, trainer, folder / "artifact"


def test_the_folder_has_the_file_the_weights_and_the_card(run: Any) -> None:
    _, _, folder = run
    assert sorted(p.name for p in folder.iterdir()) == [
        "card.json",
        "model.onnx",
        "model.safetensors",
        "replay.npz",
    ]
    assert not [p for p in folder.parent.iterdir() if p != folder]


def test_the_card_tells_what_the_file_does(run: Any) -> None:
    """Every figure of the card is recomputed here from the files alone."""
    module, _, folder = run
    net, card = lit_compress.load(folder), read_card(folder)
    data = stripes(96, 1)
    images, labels = data.tensors
    int8, pruned = card.variant("int8"), card.variant("pruned")
    accuracy = float((net(images).argmax(-1) == labels.numpy()).mean())
    assert int8.metric
    assert int8.metric.value == pytest.approx(accuracy)
    assert (int8.metric.name, int8.metric.split, int8.metric.n) == ("my_acc", "val", 96)
    assert int8.metric.interval
    assert int8.metric.interval[0] < accuracy < int8.metric.interval[1] + 1e-9
    module.eval()
    with torch.no_grad():
        reference = module(images)
    assert pruned.metric
    assert pruned.metric.value == pytest.approx(
        float((reference.argmax(-1) == labels).float().mean())
    )
    noise = (reference.numpy() - net(images)) ** 2
    expected = 10 * np.log10((reference.numpy() ** 2).sum() / noise.sum())
    assert int8.fidelity
    assert int8.fidelity.sqnr_db == pytest.approx(expected, abs=0.01)
    assert int8.fidelity.n == 96
    assert expected > 20
    assert accuracy > 0.7
    assert int8.bytes == (folder / "model.onnx").stat().st_size
    assert pruned.parameters == sum(p.numel() for p in module.parameters())
    assert pruned.nonzero == sum(int((p != 0).sum()) for p in module.parameters())
    assert pruned.macs == 8 * 8 * 8 * 9 + 4 * 4 * 12 * 8 * 9 + 12 * 4
    assert card.pruning[0]["reached"] == pytest.approx(0.5, abs=0.001)


def test_zeros_survive_in_the_file(run: Any) -> None:
    module, _, folder = run
    graph = onnx.load(folder / "model.onnx").graph
    stored = [onnx.numpy_helper.to_array(i) for i in graph.initializer]
    zeros = sum(int((array == 0).sum()) for array in stored if array.dtype == np.int8)
    pruned = sum(int((w == 0).sum()) for n, w in module.named_parameters() if w.dim() > 1)
    assert zeros >= pruned > 400


def test_a_fresh_process_needs_only_numpy_and_onnxruntime(run: Any, tmp_path: Path) -> None:
    _, _, folder = run
    images = stripes(20, 3).tensors[0].numpy()
    np.save(tmp_path / "x.npy", images)
    code = (
        "import sys, numpy as np, onnxruntime as ort\n"
        f"session = ort.InferenceSession({str(folder / 'model.onnx')!r})\n"
        f"x = np.load({str(tmp_path / 'x.npy')!r})\n"
        f"np.save({str(tmp_path / 'y.npy')!r}, session.run(None, {{'input': x}})[0])\n"
        f"sys.path.insert(0, {str(Path(lit_compress.__file__).parent.parent)!r})\n"
        "import lit_compress\n"
        f"y = lit_compress.load({str(folder)!r})(x)\n"
        f"np.save({str(tmp_path / 'z.npy')!r}, y)\n"
        "assert not {'torch', 'lightning', 'torchvision'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
    ours = lit_compress.load(folder)(images)
    # There ONNX Runtime by itself lets sums overflow, and load does not.
    for name in ("z",) if lacks_vnni() else ("y", "z"):
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), ours)


@pytest.mark.trial_conversion
def test_the_module_is_left_alone(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """Lightning's own callback put the converted layers into the module, which broke test()."""
    names, forward = list(foreign.state_dict()), foreign.forward
    callback = PostTrainingQuantization("my_acc", dirpath=str(tmp_path / "a"))
    checkpoint = ModelCheckpoint(tmp_path / "ckpt")
    trainer = make_trainer(
        max_epochs=1, callbacks=[callback, checkpoint], enable_checkpointing=True
    )
    trainer.fit(foreign, loader(), loader(32, 1))
    last = torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"]
    assert list(foreign.state_dict()) == names == list(last)
    assert all(torch.equal(value, last[name]) for name, value in foreign.state_dict().items())
    assert foreign.forward == forward
    assert foreign.training
    assert foreign.trainer is trainer
    assert not foreign._forward_pre_hooks


@pytest.mark.trial_conversion
def test_training_is_the_same_with_and_without(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    def train(callbacks: list) -> dict[str, Tensor]:
        seed_everything(3, verbose=False)
        module = ForeignModule()
        module.net.insert(2, nn.Dropout(0.3))
        shuffled = DataLoader(stripes(64, 0), batch_size=16, shuffle=True)
        make_trainer(callbacks=callbacks).fit(module, shuffled, loader(32, 1))
        return module.state_dict()

    plain = train([])
    quantised = train([PostTrainingQuantization("my_acc", dirpath=str(tmp_path / "a"))])
    assert all(torch.equal(plain[name], quantised[name]) for name in plain)


def test_submodule_and_no_monitor(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    callback = PostTrainingQuantization(submodule="net", dirpath=str(tmp_path / "a"))
    make_trainer(max_epochs=1, callbacks=[callback]).fit(foreign, loader(), loader(32, 1))
    card = read_card(tmp_path / "a")
    assert card.variant("int8").metric is None
    assert card.variant("int8").fidelity
    assert [variant.name for variant in card.variants] == ["dense", "int8"]


def test_a_validation_step_that_calls_the_child(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    class Direct(ForeignModule):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("my_acc", (self.net(batch[0]).argmax(-1) == batch[1]).float().mean())

    callback = PostTrainingQuantization("my_acc", dirpath=str(tmp_path / "a"))
    make_trainer(max_epochs=1, callbacks=[callback]).fit(Direct(), loader(), loader(32, 1))
    assert read_card(tmp_path / "a").variant("int8").metric


def test_without_validation_data_the_training_data_calibrates(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    callback = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    make_trainer(max_epochs=1, callbacks=[callback]).fit(foreign, loader())
    assert read_card(tmp_path / "a").variant("int8").fidelity.n == 64  # type: ignore[union-attr]


def test_raw_pixels_in_where_the_datamodule_states_its_preprocessing(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    class Pixels(ImageDataModule):
        classes = ("a", "b", "c", "d")

        def __init__(self) -> None:
            super().__init__(batch_size=16)
            self.preprocess = Preprocess([0.5], [0.25], pad=1)

        def read(self, train: bool) -> PixelDataset:
            images, labels = stripes(160, int(train)).tensors
            return PixelDataset((images.clamp(-1, 1) * 127 + 128).to(torch.uint8), labels)

    data = Pixels()
    trainer = make_trainer(
        max_epochs=2, callbacks=[PostTrainingQuantization("my_acc", dirpath=str(tmp_path / "a"))]
    )
    trainer.fit(ForeignModule(), data)
    net = lit_compress.load(tmp_path / "a")
    assert (net.input_dtype, net.input_shape) == (np.uint8, (1, 8, 8))
    pixels = data.datasets["val"].images
    assert net.card
    metric = net.card.variant("int8").metric
    assert metric
    hits = net(pixels).argmax(-1) == data.datasets["val"].labels.numpy()
    assert metric.value == pytest.approx(float(hits.mean()))
    metadata = {p.key: p.value for p in onnx.load(tmp_path / "a" / "model.onnx").metadata_props}
    assert metadata["lit_compress.classes"].split("\n") == ["a", "b", "c", "d"]


def test_a_datamodules_transfer_hooks_are_kept(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    class Doubling(LightningDataModule):
        def train_dataloader(self) -> DataLoader:
            return loader()

        def val_dataloader(self) -> DataLoader:
            return loader(32, 1)

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0] * 2, batch[1]

    trainer = make_trainer(
        max_epochs=2, callbacks=[PostTrainingQuantization("my_loss", dirpath=str(tmp_path / "a"))]
    )
    trainer.fit(foreign, Doubling())
    metric = read_card(tmp_path / "a").variant("dense").metric
    assert metric
    assert metric.value == pytest.approx(float(trainer.callback_metrics["my_loss"]), rel=1e-5)


@pytest.mark.filterwarnings("ignore:weights. best takes only:UserWarning")
def test_best_weights_are_none_from_before_the_target(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    class Scored(ForeignModule):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self(batch[0])
            self.log("score", torch.tensor([9.0, 8.0, 1.0, 5.0, 3.0][self.trainer.current_epoch]))

    def fit(folder: str, **options: Any) -> None:
        module, path = Scored(), tmp_path / folder
        checkpoint = ModelCheckpoint(path, "{epoch}", "score", mode="max", **options)
        callbacks = [
            MagnitudePruning(0.5, Schedule(0, 2)),
            checkpoint,
            PostTrainingQuantization(weights="best", dirpath=str(tmp_path / "a")),
        ]
        make_trainer(
            max_epochs=5, callbacks=callbacks, enable_checkpointing=True, num_sanity_val_steps=0
        ).fit(module, loader(), loader(32, 1))

    fit("c", save_top_k=-1)
    from safetensors.torch import load_file

    kept = load_file(tmp_path / "a" / "model.safetensors")
    assert read_card(tmp_path / "a").variant("int8").epoch == 4
    best = torch.load(tmp_path / "c" / "epoch=3.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, best[name]) for name, value in kept.items())
    with pytest.warns(UserWarning, match=r"no checkpoint from epoch 2 on.* last weights are conv"):
        fit("d", save_top_k=1)
    card = read_card(tmp_path / "a")
    assert card.config["PostTrainingQuantization"]["weights"] == "last"
    assert card.variant("int8").epoch == 5


def test_the_artefact_goes_to_the_log_folder(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    logger = TensorBoardLogger(tmp_path, "runs", "one")
    callback = PostTrainingQuantization()
    make_trainer(max_epochs=1, logger=logger, callbacks=[callback]).fit(
        foreign, loader(), loader(32, 1)
    )
    assert callback.path == tmp_path / "runs" / "one" / "artifact"
    assert read_card(callback.path).run == "runs/one"


@pytest.mark.trial_conversion
def test_fast_dev_run_leaves_nothing(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    target = tmp_path / "a"
    trainer = make_trainer(
        fast_dev_run=True, callbacks=[PostTrainingQuantization("my_acc", dirpath=str(target))]
    )
    trainer.fit(foreign, loader(), loader(32, 1))
    assert not target.exists()


class Refused(ForeignModule):
    """A module whose training must not even start."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        raise AssertionError("trained before the error")


def refused(make_trainer: Callable[..., Trainer], module: Any, callback: Any, **data: Any) -> None:
    loaders = {"train_dataloaders": loader(), "val_dataloaders": loader(32, 1)} | data
    make_trainer(callbacks=[callback]).fit(module, **loaders)


@pytest.mark.trial_conversion
def test_a_forward_that_cannot_be_exported_is_refused_before_training(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    class Gate(Refused):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) if x.mean() > 5 else -self.net(x)

    class Spectrum(Refused):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + torch.linalg.svdvals(x)[..., 0, :4]

    target = str(tmp_path / "a")
    with pytest.raises(ExportError, match=r"forward of Gate cannot be exported: `return self.net"):
        refused(make_trainer, Gate(), PostTrainingQuantization(dirpath=target))
    with pytest.raises(ExportError, match=r"aten\._linalg_svd has no ONNX form"):
        refused(make_trainer, Spectrum(), PostTrainingQuantization(dirpath=target))
    assert not Path(target).exists()


@pytest.mark.trial_conversion
def test_a_metric_that_is_not_logged_is_refused_before_training(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    callback = PostTrainingQuantization("acuracy", dirpath=str(tmp_path / "a"))
    with pytest.raises(InvalidArgumentError, match=r"'acuracy' is not logged.*my_acc, my_loss"):
        refused(make_trainer, Refused(), callback)


@pytest.mark.trial_conversion
def test_an_unknown_submodule_is_refused_before_training(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    callback = PostTrainingQuantization(submodule="body", dirpath=str(tmp_path / "a"))
    with pytest.raises(InvalidArgumentError, match="no module 'body'; its children are: net"):
        refused(make_trainer, Refused(), callback)


@pytest.mark.parametrize("place", ["full", "file", "file/below"])
def test_a_folder_that_cannot_be_written_is_refused_before_training(
    make_trainer: Callable[..., Trainer], tmp_path: Path, place: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    callback = PostTrainingQuantization(dirpath=str(tmp_path / place))
    with pytest.raises(ArtifactError, match="dirpath"):
        refused(make_trainer, Refused(), callback)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


def test_calibration_without_batches_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="calibration_batches must be at least 1, got 0"):
        PostTrainingQuantization(calibration_batches=0)


@pytest.mark.filterwarnings("ignore:Total length of `DataLoader`:UserWarning")  # it is the point
def test_with_empty_validation_data_the_training_data_calibrates(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    empty = DataLoader(stripes(0, 0), batch_size=4)
    callback = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    make_trainer(max_epochs=1, callbacks=[callback]).fit(foreign, loader(), empty)
    assert read_card(tmp_path / "a").variant("int8").fidelity.n == 64


@pytest.mark.trial_conversion
def test_nan_in_a_batch_is_refused_and_the_old_artefact_stays(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    target = tmp_path / "a"
    make_trainer(max_epochs=1, callbacks=[PostTrainingQuantization(dirpath=str(target))]).fit(
        foreign, loader(), loader(32, 1)
    )
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    data = stripes(32, 1)
    data.tensors[0][20, 0, 0, 0] = float("nan")
    trainer = make_trainer(max_epochs=1, callbacks=[PostTrainingQuantization(dirpath=str(target))])
    with pytest.raises(CalibrationError, match="calibration batch 1 holds 1 values that are NaN"):
        trainer.fit(foreign, loader(), DataLoader(data, batch_size=16))
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["weights", "calibration", "preprocess"])
def test_unknown_choices_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{name} must be one of"):
        PostTrainingQuantization(**{name: "other"})  # type: ignore[arg-type]


def test_copies_stay_picklable(foreign: ForeignModule) -> None:
    callback = copy.deepcopy(PostTrainingQuantization("my_acc"))
    assert callback.arguments()["monitor"] == "my_acc"
    assert DigitsDataModule().num_classes == 10


def convert(make_trainer: Callable[..., Trainer], folder: Path, **options: Any) -> Any:
    """Return the card of a module trained on stripes and converted."""
    module = options.pop("module", None) or ForeignModule()
    loaders = options.pop("loaders", None) or (loader(256), loader(96, 1))
    epochs = options.pop("epochs", 6)
    callback = PostTrainingQuantization("my_acc", dirpath=str(folder), **options)
    make_trainer(max_epochs=epochs, callbacks=[callback]).fit(module, *loaders)
    return read_card(folder)


class Spiked(ForeignModule):
    """One weight of a layer is so large that int8 has nothing left for the others."""

    def on_train_end(self) -> None:
        with torch.no_grad():
            self.net[3].weight[:, 0, 0, 0] = 1e4
            self.net[0].weight[0] = 0  # it weighs what is always zero
            for values in (self.net[1].weight, self.net[1].bias, self.net[1].running_mean):
                values[0] = 0


def test_max_drop_puts_the_worst_layers_back(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    seed_everything(0, verbose=False)
    with pytest.warns(UserWarning, match=r"the weight of net\.3 has the largest error"):
        plain = convert(make_trainer, tmp_path / "a", module=Spiked())
    seed_everything(0, verbose=False)
    kept = convert(make_trainer, tmp_path / "b", module=Spiked(), max_drop=0.01)
    float_acc = kept.variant("dense").metric.value
    assert float_acc - plain.variant("int8").metric.value > 0.1
    assert float_acc - kept.variant("int8").metric.value <= 0.01
    quality = kept.variant("int8").fidelity
    assert [row.name for row in quality.layers if row.float] == ["net.3"]
    worst = min(quality.layers, key=lambda row: row.weight_db or 200)
    assert worst.name == "net.3"
    assert 1 < quality.evaluations <= 2 * np.log2(len(quality.layers)) + 8
    net = lit_compress.load(tmp_path / "b")
    images, labels = stripes(96, 1).tensors
    accuracy = float((net(images).argmax(-1) == labels.numpy()).mean())
    assert kept.variant("int8").metric.value == pytest.approx(accuracy)
    names = sorted(path.name for path in (tmp_path / "b").iterdir())
    assert names == ["card.json", "model.onnx", "model.safetensors", "replay.npz"]


def test_a_drop_that_cannot_be_kept(
    make_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lit_compress.callbacks._quantization import conversion
    from lit_compress.callbacks._quantization.file import drop

    monkeypatch.setattr(drop, "lost_of", lambda *_: 0.5)
    monkeypatch.setattr(conversion, "candidates", lambda *_: [frozenset()])
    with pytest.warns(
        UserWarning, match="cannot be kept.*the file with the smallest drop was written"
    ):
        convert(make_trainer, tmp_path / "a", epochs=1, max_drop=0.01, on_drop="warn")
    assert lit_compress.load(tmp_path / "a").card
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(AccuracyError, match=r"max_drop 0\.01 cannot be kept: my_acc .* by 0\.5000"):
        convert(make_trainer, tmp_path / "a", epochs=1, max_drop=0.01)
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a-trained.safetensors"]


def test_skipped_layers_are_on_the_card(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    card = convert(make_trainer, tmp_path / "a", skip=["first", "net.3*"])
    rows = {row.name: row for row in card.variant("int8").fidelity.layers}
    assert [name for name, row in rows.items() if row.float] == ["net.0", "net.3"]
    stored = onnx.load(tmp_path / "a" / "model.onnx").graph.initializer
    arrays = [onnx.numpy_helper.to_array(item) for item in stored]
    assert [a.shape for a in arrays if a.dtype == np.float32 and a.ndim == 4] == [
        (8, 1, 3, 3), (12, 8, 3, 3),
    ]  # fmt: skip
    with pytest.raises(PatternError, match=r"skip: 'net\.9' matches no layer"):
        convert(make_trainer, tmp_path / "b", skip=["net.9"])


@pytest.mark.parametrize(
    "options",
    [
        {"calibration": "percentile", "calibration_split": "train", "seed": 3},
        {"calibration": "minmax", "weight_range": "reduced", "opset": 19},
    ],
)
def test_options_of_the_conversion(
    make_trainer: Callable[..., Trainer], tmp_path: Path, options: dict[str, Any]
) -> None:
    card = convert(make_trainer, tmp_path / "a", **options)
    assert card.variant("int8").fidelity.sqnr_db > 18
    model = onnx.load(tmp_path / "a" / "model.onnx")
    largest = max(
        np.abs(a.astype(int)).max()
        for a in map(onnx.numpy_helper.to_array, model.graph.initializer)
        if a.dtype == np.int8
    )
    assert largest == (64 if options.get("weight_range") == "reduced" else 127)
    assert model.opset_import[0].version == options.get("opset", model.opset_import[0].version)
    used = card.config["PostTrainingQuantization"]
    assert {name: used[name] for name in options} == options


@pytest.mark.trial_conversion
def test_batches_of_mappings(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    from evaluation.test_export_target import Pair, mappings

    loaders = (mappings(256, 0), mappings(96, 1))
    card = convert(make_trainer, tmp_path / "a", module=Pair(), loaders=loaders)
    net = lit_compress.load(tmp_path / "a")
    assert [given.name for given in net.inputs] == ["batch_image", "batch_scale"]
    batch = next(iter(mappings(96, 1)))
    inputs = {f"batch_{name}": batch[name].numpy() for name in ("image", "scale")}
    scores = net(inputs)
    np.testing.assert_array_equal(scores, net(batch["image"], batch["scale"]))
    np.testing.assert_array_equal(scores, net(**inputs))
    assert card.variant("int8").fidelity.sqnr_db > 20
    assert card.variant("int8").metric.n == 96
    with pytest.raises(InvalidArgumentError, match=r"takes 2 inputs \(batch_image, batch_scale\)"):
        net(batch["image"])


@pytest.mark.trial_conversion
def test_a_result_without_tensors_is_refused_by_name(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    class Several(Refused):
        def forward(self, x: Tensor) -> Any:
            return {"scores": self.net(x).tolist()}

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self(batch[0])

    callback = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    with pytest.raises(ExportError, match="returns a dict without tensors"):
        refused(make_trainer, Several(), callback)


def test_a_layer_that_gives_nan_is_named(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    class Overflowing(ForeignModule):
        def on_train_end(self) -> None:
            with torch.no_grad():
                self.net[3].weight.fill_(3e38)

    with pytest.raises(
        CalibrationError, match=r"layer net\.3 gives NaN or infinity for calibration"
    ):
        convert(make_trainer, tmp_path / "a", module=Overflowing())
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drop": -0.1, "monitor": "my_acc"}, "max_drop must be at least 0"),
        ({"max_drop": 0.1}, "max_drop needs a metric: set monitor"),
        ({"opset": 12}, "opset must be from 18 to 23, got 12"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        PostTrainingQuantization(**options)


def test_restored_modules_train_on(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    from lit_compress.callbacks import FilterPruning

    module = ForeignModule()
    module.save_hyperparameters({"lr": 0.05})
    callbacks = [
        FilterPruning(0.5, schedule=Schedule(0, 0)),
        PostTrainingQuantization("my_acc", dirpath=str(tmp_path / "a")),
    ]
    make_trainer(max_epochs=2, callbacks=callbacks).fit(module, loader(), loader(32, 1))
    restored = lit_compress.restore(tmp_path / "a", ForeignModule)
    assert restored.net[0].out_channels < 8
    assert all(
        torch.equal(value, module.state_dict()[name])
        for name, value in restored.state_dict().items()
    )
    assert restored.lr == 0.05
    assert lit_compress.restore(tmp_path / "a", ForeignModule, lr=0.1).lr == 0.1
    make_trainer(max_epochs=1).fit(restored, loader(), loader(32, 1))

    class Wider(ForeignModule):
        def __init__(self) -> None:
            super().__init__()
            self.net[7] = nn.Linear(12, 5)

    with pytest.raises(CheckpointError, match="build the module with the arguments"):
        lit_compress.restore(tmp_path / "a", Wider)
    (tmp_path / "a" / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"has no model\.safetensors"):
        lit_compress.restore(tmp_path / "a", ForeignModule)


@pytest.mark.parametrize("runtime", ["openvino", "fastest"])
def test_the_same_classes_in_every_runtime(run: Any, runtime: Any) -> None:
    pytest.importorskip("openvino")
    _, _, folder = run
    images = stripes(300, 7).tensors[0]
    ours, other = lit_compress.load(folder), lit_compress.load(folder, runtime=runtime, threads=2)
    assert (ours(images).argmax(-1) == other(images).argmax(-1)).all()


class NamesByStage(ForeignModule):
    """Names its metrics by the stage, as a public forecasting library does."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        hits = (self(batch[0]).argmax(-1) == batch[1]).float().mean()
        self.log(f"{self.trainer.state.stage.value}_acc", hits)


@pytest.mark.trial_conversion
def test_a_metric_that_is_named_by_the_stage_is_found(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """It was looked for as "sanity_check_acc", and refused."""
    callbacks = [
        PostTrainingQuantization("validate_acc", dirpath=str(tmp_path / "a")),
        CompressionReport("validate_acc"),
    ]
    make_trainer(max_epochs=1, callbacks=callbacks).fit(NamesByStage(), loader(), loader(32, 1))
    card = read_card(tmp_path / "a")
    assert all(card.variant(name).metric for name in ("dense", "int8"))


class MadeInSetup(ForeignModule):
    def setup(self, stage: str) -> None:
        self.net = ForeignModule().net


@pytest.mark.trial_conversion
def test_a_network_made_in_setup_is_the_trained_one(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """A second Trainer called setup() again: the file had random weights."""
    module = MadeInSetup()
    callback = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    make_trainer(max_epochs=2, callbacks=[callback]).fit(module, loader(), loader(32, 1))
    images = loader(32, 1).dataset.tensors[0]
    found = lit_compress.load(tmp_path / "a")(images.numpy())
    with torch.no_grad():
        assert sqnr_db(module.eval()(images).numpy(), found) > 25


class OwnForward(ForeignModule):
    """Its steps call the forward itself, which runs no hooks."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x / 4).softmax(1)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("my_acc", (self.forward(batch[0]).argmax(-1) == batch[1]).float().mean())


class Compiled(ForeignModule):
    """Its child is compiled; its own forward does nothing that the export can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.compile(self.net, backend="eager")

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("my_acc", (self.net(batch[0]).argmax(-1) == batch[1]).float().mean())


@pytest.mark.trial_conversion
@pytest.mark.parametrize(
    "kind", [OwnForward, pytest.param(Compiled, marks=pytest.mark.slow, id="Compiled")]
)
def test_the_file_computes_what_the_steps_call(
    kind: type[ForeignModule], make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """Of a forward that was called by name the child alone was exported, at -8 dB."""
    module, callback = kind(), PostTrainingQuantization("my_acc", dirpath=str(tmp_path / "a"))
    make_trainer(max_epochs=2, callbacks=[callback]).fit(module, loader(), loader(32, 1))
    images = loader(32, 1).dataset.tensors[0]
    call = module.forward if kind is OwnForward else module.net
    module.eval()
    with torch.no_grad():
        expected = call(images).numpy()
    assert sqnr_db(expected, lit_compress.load(tmp_path / "a")(images.numpy())) > 25
    assert read_card(tmp_path / "a").variant("int8").metric.n == 32


@pytest.mark.trial_conversion
def test_a_handful_of_calibration_inputs_is_told_before_training(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """At batch size 1 ten batches were ten images, and nothing said so."""
    callback = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    trainer = make_trainer(max_epochs=1, callbacks=[callback])
    with pytest.warns(UserWarning, match=r"10 batches of 1: .* set calibration_batches to 64"):
        trainer.fit(ForeignModule(), loader(), loader(16, 1, batch_size=1))


@pytest.mark.trial_conversion
def test_no_more_batches_calibrate_than_the_run_validates_on(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """Ten batches were read under a limit of two."""
    callback = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    trainer = make_trainer(max_epochs=1, limit_val_batches=2, callbacks=[callback])
    with pytest.warns(UserWarning, match=r"2 batches of 16: .* set limit_val_batches to 4"):
        trainer.fit(ForeignModule(), loader(), loader(256, 1))
    fidelity = read_card(tmp_path / "a").variant("int8").fidelity
    assert fidelity
    assert fidelity.n == 32


class TwoSizes(Dataset):
    """Batches that are padded to their longest example."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.randn(8, 1, 8, 8 + index), torch.arange(8) % 4


@pytest.mark.trial_conversion
def test_batches_of_several_sizes_are_refused_before_training(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """It was an error of torch.cat after the whole training."""
    data = DataLoader(TwoSizes(), batch_size=None)
    callback = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    with pytest.raises(CalibrationError, match=r"must have one size.*in batch 0 and .*in batch 1"):
        refused(make_trainer, Refused(), callback, val_dataloaders=data)


class TrainingAlone(LightningDataModule):
    """Has no val_dataloader, which Lightning allows."""

    def train_dataloader(self) -> DataLoader:
        return loader()


def test_a_datamodule_without_validation_data_calibrates_on_training_data(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """Lightning's own error ended the run: val_dataloader must be implemented."""
    callback = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    make_trainer(max_epochs=1, callbacks=[callback]).fit(foreign, datamodule=TrainingAlone())
    assert read_card(tmp_path / "a").variant("int8").fidelity.n == 64


class NotFinite(ForeignModule):
    """Its training ends in weights that cannot be converted."""

    def on_train_end(self) -> None:
        self.net[3].weight.data[0] = float("nan")


def test_the_weights_are_safe_if_the_conversion_fails_at_the_end(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """Hours of training were lost with the artefact."""
    module = NotFinite()
    said = r"net\.3\.weight.* The trained float weights are in (.*)\. To convert"
    with pytest.raises(CalibrationError, match=said) as raised:
        make_trainer(max_epochs=1, callbacks=[PostTrainingQuantization()]).fit(module, loader())
    path = tmp_path / "artifact-trained.safetensors"
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    module.net[3].weight.data[0] = 0
    again = NotFinite()
    load_saved(again, path)
    assert again.net[3].weight.isnan().any()
    assert f"quantize(model, datamodule=..., ckpt_path={str(path)!r})" in str(raised.value)


class WithObjects(ForeignModule):
    def __init__(self, activation: nn.Module | None = None, sizes: Any = ((8, 3),)) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.net[2] = activation or nn.ReLU6()
        self.sizes = sizes


@pytest.mark.filterwarnings("ignore:.*is an instance of `nn.Module`:UserWarning")
def test_restore_asks_for_the_objects_that_the_file_has_not(
    make_trainer: Callable[..., Trainer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An activation given to the constructor was replaced by the default one, in silence."""
    module = WithObjects(nn.Tanh(), ((8, 3), (4, 5)))
    quantizer = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    trainer = make_trainer(max_epochs=1, callbacks=[quantizer])
    trainer.fit(module, loader())
    written = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert f"restore({str(tmp_path / 'a')!r}, WithObjects, activation=...)" in caplog.text
    with pytest.raises(
        CheckpointError, match=r"activation \(torch.nn.*Tanh\).*\(activation=\.\.\.\)"
    ):
        lit_compress.restore(tmp_path / "a", WithObjects)
    again = lit_compress.restore(tmp_path / "a", WithObjects, activation=nn.Tanh()).eval()
    assert again.sizes == [[8, 3], [4, 5]]
    with torch.no_grad():
        assert torch.equal(again(images := torch.randn(2, 1, 8, 8)), module.eval()(images))
    trainer.fit(module, loader())  # it trains nothing, and so changes no file
    assert (quantizer.path, quantizer.written) == (tmp_path / "a", False)
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == written


class Normalized(Dataset):
    """Whole pixels with a torchvision transform."""

    def __init__(self) -> None:
        self.transform = Compose([Normalize([0.5], [0.25])])
        pixels = torch.randint(0, 256, (64, 1, 8, 8), generator=torch.Generator().manual_seed(0))
        self.images, self.labels = pixels / 255, torch.arange(64) % 4

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[index]), self.labels[index]


def test_without_validation_data_nothing_is_said_of_them(
    make_trainer: Callable[..., Trainer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The time to measure on them was announced, the card said that they calibrated the file, and
    its pixels were not looked for in the training data."""
    callback = PostTrainingQuantization("my_acc", dirpath=str(tmp_path / "a"))
    trainer = make_trainer(max_epochs=1, callbacks=[callback], limit_val_batches=0)
    with (
        caplog.at_level("INFO"),
        pytest.warns(UserWarning, match="my_acc is not measured: .* training batches calibrate"),
    ):
        trainer.fit(ForeignModule(), DataLoader(Normalized(), 16))
    assert "by the Normalize of the training data" in caplog.text
    assert "all of the validation data" not in caplog.text
    card = read_card(tmp_path / "a")
    assert card.config["PostTrainingQuantization"]["calibration_split"] == "train"
    assert str(lit_compress.load(tmp_path / "a").input_dtype) == "uint8"


class Named(Dataset):
    """As torchvision's data sets: it knows the names of its classes."""

    classes = ("a", "b", "c", "d")

    def __init__(self) -> None:
        self.images, self.labels = stripes(48, 1).tensors

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]


@pytest.mark.parametrize(("names", "kept"), [(Named.classes, Named.classes), (("a", "b"), ())])
def test_class_names_are_those_of_the_data_set_if_there_is_one_for_each_output(
    names: tuple[str, ...],
    kept: tuple[str, ...],
    foreign: ForeignModule,
    make_trainer: Callable[..., Trainer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file of plain loaders had no names, and the example of README failed."""
    monkeypatch.setattr(Named, "classes", names)
    data = DataLoader(Subset(Named(), range(32)), 16)
    callback = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    make_trainer(max_epochs=1, callbacks=[callback]).fit(foreign, loader(), data)
    assert lit_compress.load(tmp_path / "a").classes == kept


def test_two_callbacks_with_one_folder_are_refused(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    """The second file replaced the first."""
    both = [PostTrainingQuantization(), PostTrainingQuantization(calibration="histogram")]
    with pytest.raises(InvalidArgumentError, match="give each a dirpath of its own"):
        make_trainer(max_epochs=1, callbacks=both).fit(foreign, loader(), loader(32, 1))


class Interrupted(ForeignModule):
    """Ctrl-C comes while the file is written."""

    def on_fit_end(self) -> None:
        self.over = True

    def forward(self, x: Tensor) -> Tensor:
        if "over" in vars(self):
            raise KeyboardInterrupt
        return super().forward(x)


def test_ctrl_c_in_the_conversion_keeps_the_weights_and_says_where(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """Nothing said that there is no artefact, and how to make one."""
    callback = PostTrainingQuantization(dirpath=str(tmp_path / "a"))
    trainer = make_trainer(max_epochs=1, callbacks=[callback])
    module = Interrupted()
    module.on_train_end = module.on_fit_end  # type: ignore[method-assign]  # before the callbacks' end
    with (
        pytest.warns(
            UserWarning, match="The trained float weights are in .* To convert them later"
        ),
        pytest.raises(SystemExit),
    ):
        trainer.fit(module, loader(), loader(32, 1))
    assert (tmp_path / "a-trained.safetensors").is_file()
    assert not (tmp_path / "a").exists()
