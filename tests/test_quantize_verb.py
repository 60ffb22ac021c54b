"""lit-compress quantize, and test --artifact, in this process."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import lit_compress
from lit_compress.artifact import read_card
from lit_compress.cli import main
from lit_compress.datamodules import DigitsDataModule
from lit_compress.modules import ShuffleNetV2
from lit_compress.trainer import Trainer

# Lightning 2.6 calls what jsonargparse 5 will remove: lit_compress pins jsonargparse below 5.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("noise_of_two_inputs", "shallow"),
]

CONFIG: dict[str, dict[str, Any]] = {
    "trainer": {
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
    },
    "model": {"class_path": "ShuffleNetV2", "init_args": {"in_channels": 1, "width": 0.5}},
    "data": {"class_path": "DigitsDataModule"},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    trainer = {**CONFIG["trainer"], "default_root_dir": str(path.parent)}
    path.write_text(yaml.safe_dump({**CONFIG, "trainer": trainer}))
    return f"--config={path}"


@pytest.fixture(scope="module")
def checkpoint(
    config: str, noise_of_two_inputs: None, shallow: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint of a network that lost half of its filters."""
    folder = tmp_path_factory.mktemp("fit")
    pruning = {"class_path": "FilterPruning", "init_args": {"target": 0.5}}
    pruning["init_args"]["schedule"] = {"first": 0, "last": 0}  # type: ignore[index]
    saving = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": str(folder / "kept")}}
    saving["init_args"]["save_last"] = True  # type: ignore[index]
    parts = {"trainer": {"max_epochs": 2, "callbacks": [pruning, saving]}}
    (folder / "parts.yaml").write_text(yaml.safe_dump(parts))
    assert main(["fit", config, f"--config={folder / 'parts.yaml'}"]) == 0
    return folder / "kept" / "last.ckpt"


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, config: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantised") / "artifact"
    words = [config, f"--ckpt_path={checkpoint}", f"--dirpath={folder}"]
    assert main(["quantize", *words, "--monitor=val_acc", "--opset=19"]) == 0
    return folder


def test_a_pruned_checkpoint_becomes_an_artefact(artifact: Path) -> None:
    card = read_card(artifact)
    assert [variant.name for variant in card.variants] == ["pruned", "int8"]
    pruned, int8 = card.variants
    assert pruned.metric
    assert int8.metric
    assert abs(pruned.metric.value - int8.metric.value) < 0.02
    assert int8.parameters < 200_000
    assert card.config["PostTrainingQuantization"]["opset"] == 19
    restored = lit_compress.restore(artifact, ShuffleNetV2)
    assert sum(p.numel() for p in restored.parameters()) == pruned.parameters


def test_the_card_says_what_the_checkpoint_was_pruned_to(artifact: Path) -> None:
    """It had no pruning, or 0 of 0.5 if the config named the callback."""
    (pruning,) = read_card(artifact).pruning
    assert (pruning["callback"], pruning["target"], pruning["epochs"]) == (
        "FilterPruning",
        0.5,
        [0],
    )
    assert pruning["reached"] == pytest.approx(0.5, abs=0.03)


def test_the_file_is_measured_on_the_test_data(
    artifact: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    net = lit_compress.load(artifact)
    data = DigitsDataModule(64)
    data.setup("test")
    images, labels = data.datasets["test"].images, data.datasets["test"].labels
    accuracy = float((net(images).argmax(-1) == labels.numpy()).mean())
    capsys.readouterr()
    assert main(["test", config, f"--artifact={artifact}"]) == 0
    shown = re.search(r"test_acc\W+([0-9.]+)", capsys.readouterr().out)
    assert shown
    assert float(shown[1]) == pytest.approx(accuracy)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    model = ShuffleNetV2(in_channels=1, width=0.5)
    found = trainer.test(model, datamodule=data, artifact=str(artifact), verbose=False)
    assert found[0]["test_acc"] == pytest.approx(accuracy)
    assert "forward" not in vars(model)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["test", "--artifact=nowhere"], "nowhere is not an artefact"),
        (["test", "--artifact=nowhere", "--ckpt_path=x"], "and no ckpt_path"),
        (["quantize", "--ckpt_path=nowhere"], "ckpt_path: there is no file"),
        (["quantize", "--max_drop=0.1"], "max_drop needs a metric: set monitor"),
        (["quantize", "--opset=3"], "opset must be from 18 to 23"),
        (["quantize", "--monitor=acc"], "monitor 'acc' is not logged"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    config: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([words[0], config, *words[1:]]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "artifact").exists()


@pytest.mark.slow
def test_a_drop_that_cannot_be_kept_is_not_zero(
    checkpoint: Path,
    config: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from lit_compress.callbacks._quantization import conversion
    from lit_compress.callbacks._quantization.file import drop

    monkeypatch.setattr(drop, "lost_of", lambda *_: 1.0)
    monkeypatch.setattr(conversion, "candidates", lambda *_: [frozenset()])
    target = tmp_path / "artifact"
    words = [f"--ckpt_path={checkpoint}", f"--dirpath={target}", "--monitor=val_acc"]
    assert main(["quantize", config, *words, "--max_drop=0.01"]) == 2
    assert "max_drop 0.01 cannot be kept" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
