from pathlib import Path

import pytest
import yaml

from lit_compress.cli import PACKAGED, main

# Lightning 2.6 calls what jsonargparse 5 will remove: lit_compress pins jsonargparse below 5.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("noise_of_two_inputs", "no_trial_conversion", "shallow"),
]

CONFIGS = sorted(path.name for path in PACKAGED.glob("*.yaml"))
PARTS = (
    "compress.yaml",
    "overfit.yaml",
    "prune_blocks.yaml",
    "prune_elements.yaml",
    "prune_filters.yaml",
    "prune_rules.yaml",
    "quantize.yaml",
)


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    with pytest.raises(SystemExit) as stop:
        main(["fit", *words, "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def words_for(name: str) -> list[str]:
    base = ["--config", "quickstart.yaml"] if name in PARTS else []
    return [*base, "--config", name]


@pytest.mark.parametrize("name", CONFIGS)
def test_print_config_round_trips(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    once = printed(words_for(name), capsys)
    path = tmp_path / "printed.yaml"
    path.write_text(yaml.safe_dump(once))
    assert printed(["--config", str(path)], capsys) == once
    assert once["model"]["class_path"].startswith("lit_compress.modules.")


def test_parts_append_to_the_callbacks(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config", "shufflenet_v2_fashion_mnist.yaml"]
    words += ["--config", "prune_elements.yaml", "--config", "quantize.yaml"]
    callbacks = printed(words, capsys)["trainer"]["callbacks"]
    assert [callback["class_path"].rpartition(".")[2] for callback in callbacks] == [
        "ModelCheckpoint",
        "CompressionReport",
        "MagnitudePruning",
        "PostTrainingQuantization",
    ]
    assert callbacks[-1]["init_args"]["monitor"] == "val_acc"


def test_a_flag_between_configs_reaches_the_callback_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("- {pattern: model.fc, ratio: 0.5}\n")
    words = ["--config", "shufflenet_v2_fashion_mnist.yaml", "--config", "prune_rules.yaml"]
    words += [f"--trainer.callbacks.rules={rules}", "--config", "quantize.yaml"]
    callbacks = printed(words, capsys)["trainer"]["callbacks"]
    names = [callback["class_path"].rpartition(".")[2] for callback in callbacks]
    assert names[-2:] == ["RulePruning", "PostTrainingQuantization"]
    assert callbacks[-2]["init_args"]["rules"] == str(rules)


@pytest.mark.parametrize("name", CONFIGS)
def test_each_begins_with_a_comment_that_says_what_and_how(name: str) -> None:
    lines = (PACKAGED / name).read_text().splitlines()
    assert lines[0].startswith("# ")
    assert any("lit-compress fit --config" in line for line in lines[:8])


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ("fashion_mnist", ["prune_elements.yaml", "quantize.yaml"]),
        ("cifar10", ["prune_filters.yaml", "quantize.yaml"]),
    ],
)
@pytest.mark.slow
def test_an_architecture_config_runs_with_parts(
    data: str,
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    folder = request.getfixturevalue(f"{data}_dir")
    monkeypatch.chdir(tmp_path)
    words = ["--config", f"shufflenet_v2_{data}.yaml"]
    words += [word for part in parts for word in ("--config", part)]
    words += [f"--data.data_dir={folder}", "--data.download=false", "--trainer.max_epochs=3"]
    words += ["--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
    assert main(["fit", *words]) == 0
    assert len(list(Path("runs").rglob("card.json"))) == 1


@pytest.mark.slow
def test_overfitting_from_a_reference_prints_its_three_rows(
    tmp_path: Path,
    fashion_mnist_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--config", "shufflenet_v2_fashion_mnist.yaml", "--model.width=0.5"]
    words += [f"--data.data_dir={fashion_mnist_dir}", "--data.download=false"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
    assert main(["fit", *words, *quiet, "--trainer.max_epochs=1"]) == 0
    capsys.readouterr()
    reference = next(Path("runs").rglob("last.ckpt"))
    words += ["--config", "overfit.yaml", "--trainer.callbacks.schedule.first=2"]
    words += [*quiet, "--trainer.max_epochs=3", f"--model.init_from={reference}"]
    assert main(["fit", *words]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = [row for row in rows if row and row[0] in ("reference", "overfitted", "pruned")]
    assert [row[:2] for row in rows[:3]] == [
        ["reference", "0"],
        ["overfitted", "2"],
        ["pruned", "3"],
    ]
    assert all(len(row) == 5 for row in rows[:3])


def test_the_top_level_links_lead_into_the_package() -> None:
    root = PACKAGED.parent.parent
    for name in ("configs", "callbacks", "datamodules"):
        assert (root / name).resolve() == (root / "lit_compress" / name).resolve()
