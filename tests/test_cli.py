import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

import lit_compress
from lit_compress.cli import PACKAGED, VERBS, main
from lit_compress.modules import ShuffleNetV2

# Lightning 2.6 calls what jsonargparse 5 will remove: lit_compress pins jsonargparse below 5.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("shallow"),
]

TINY = {
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 2,
        "limit_train_batches": 4,
        "limit_val_batches": 2,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "callbacks": [{"class_path": "MagnitudePruning", "init_args": {"target": 0.5}}],
    },
    "model": {"class_path": "ShuffleNetV2", "init_args": {"in_channels": 1, "width": 0.5}},
    "data": {"class_path": "DigitsDataModule"},
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


class SaveEachRank(Callback):
    """Writes the weights that each process ends with."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(pl_module.state_dict(), f"rank{trainer.global_rank}.pt")


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == main(["-h"]) == 0
    printed = capsys.readouterr().out
    assert all(verb in printed for verb in VERBS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lit-compress {lit_compress.__version__}\n"


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict", "scan"])
def test_each_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert "--trainer.max_epochs" in capsys.readouterr().out


def test_the_docstrings_are_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--trainer.callbacks.help=MagnitudePruning"])
    assert "Share of the prunable weights that is zero at the end" in capsys.readouterr().out


def test_configs_lists_every_packaged_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(p.name for p in PACKAGED.glob("*.yaml"))


PRUNED = {"class_path": "FilterPruning", "init_args": {"target": 0.5, "schedule": {"last": 0}}}


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")  # no logger, other verb
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
def test_checkpoint_of_a_smaller_network_is_tested_and_started_from(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {**TINY, "trainer": {**TINY["trainer"], "callbacks": [PRUNED]}}
    config.write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", str(config)]) == 0
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    small = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert small["model.conv5.0.weight"].shape[0] == 512
    words = ["--config", str(config), "--ckpt_path", str(checkpoint)]
    assert main(["test", *words]) == 0
    assert "test_acc" in capsys.readouterr().out
    content["trainer"]["callbacks"] = []
    config.write_text(yaml.safe_dump(content))
    assert main(["validate", "--config", str(config), f"--model.init_from={checkpoint}"]) == 0
    # Without the callback, torch listed the sizes that did not match.
    assert main(["test", *words]) == 0
    assert "test_acc" in capsys.readouterr().out
    assert main(["fit", *words, "--trainer.enable_checkpointing=false"]) == 2
    assert "saved with a pruning callback, which this run does not have" in capsys.readouterr().err
    module = lit_compress.load_from_checkpoint(ShuffleNetV2, checkpoint)
    assert module.model.conv5[0].out_channels == 512


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")  # no logger, other verb
def test_fit_test_and_predict(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config", str(config)]
    checkpoint = "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.dirpath=ckpt"
    assert main(["fit", *words, *checkpoint]) == 0
    (path,) = Path("ckpt").glob("*.ckpt")
    for verb in ("validate", "test", "predict"):
        assert main([verb, *words, f"--ckpt_path={path}"]) == 0
    assert "test_acc" in capsys.readouterr().out


def test_checkpoint_that_is_missing_or_cut_off_is_named(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One cut off was told as 'Invalid argument'."""
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(b"PK\x03\x04" + bytes(5000))
    for path, message in ((cut, "is not complete"), ("no.ckpt", "there is no checkpoint")):
        assert main(["fit", "--config", str(config), f"--ckpt_path={path}"]) == 2
        assert message in capsys.readouterr().err


def test_init_from_takes_the_weights_alone(config: Path) -> None:
    words = ["fit", "--config", str(config), "--trainer.callbacks=null"]
    checkpoint = "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.dirpath=ckpt"
    assert main([*words, *checkpoint]) == 0
    (path,) = Path("ckpt").glob("*.ckpt")
    still = ["--model.optimizer=SGD", "--model.optimizer.lr=0", "--trainer.max_epochs=1"]
    save = f"--trainer.callbacks+={__name__}.SaveEachRank"
    assert main([*words, save, *still, f"--model.init_from={path}"]) == 0
    trained = torch.load(path, weights_only=True)["state_dict"]
    started = torch.load("rank0.pt", weights_only=True)
    assert torch.equal(trained["model.fc.weight"], started["model.fc.weight"])


def test_packaged_configs_are_found_by_name(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = ["--config", "prune_elements.yaml", "--config", "configs/quantize.yaml"]
    words = ["fit", "--config", str(config), "--trainer.callbacks=null", *part, "--print_config"]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0
    callbacks = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]
    assert [callback["class_path"].rpartition(".")[2] for callback in callbacks] == [
        "MagnitudePruning",
        "PostTrainingQuantization",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fti"], "'fti' is not a verb of lit-compress: did you mean fit?"),
        (["dance"], "the verbs are fit, doctor, search"),
        (["--trainer.callbacks.target=1.5"], "target must be in [0, 1), the share to remove"),
        (["--trainer.callbacks.tarjet=.5"], "MagnitudePruning has no argument 'tarjet'; did you"),
        (["--trainer.callbacks.target=much"], "trainer.callbacks.target: expected float"),
        (["--trainer.callbacks+=MagnitudPruning"], "no class 'MagnitudPruning'; did you mean 'Mag"),
        (["--trainer.callbacks+=MagnitudePruning"], "MagnitudePruning needs a value for target"),
        (["--trainer.callbacks.schedule.last=9"], "schedule.last is 9, but a run of 2 epochs"),
        (["--trainer.callbacks.schedule.shape=x"], "expected value of 'cubic', 'linear', 'one_s"),
        (["--trainer.callbacks.schedule.first=-1"], "schedule.first must be a whole number"),
        (["--trainer.callbacks.include=[conv9]"], "the pattern 'conv9' matches no conv or linear"),
        (["--model.widht=2"], "ShuffleNetV2 has no argument 'widht'; did you mean 'width'?"),
        (["--model.width=0"], "model.width must be above 0, got 0"),
        (["--model=AlexNet"], "AlexNet needs images of at least 63 pixels"),
        (
            ["--model.in_channels=3"],
            "takes images of 3 channels, got 1: set model.in",
        ),
        (
            ["--model.num_classes=4"],
            "has 4 classes, but the data has 10: set model.num_classes to 10",
        ),
        (["--model.init_from=none.ckpt"], "init_from: there is no file"),
        (["--config=none.yaml"], "config: File does not exist: '"),
        (["--nonsense=1"], "unrecognized arguments: --nonsense=1"),
        (["--data=Digits"], "there is no class 'Digits'; did you mean 'DigitsDataModule'?"),
        (
            ["--data=FashionMNISTDataModule", "--data.data_dir=nowhere", "--data.download=false"],
            "FashionMNIST is not under",
        ),
        (
            [
                "--trainer.callbacks+=PostTrainingQuantization",
                "--trainer.callbacks.calibration_batches=0",
            ],
            "calibration_batches must be at least 1, got 0",
        ),
        (
            [
                "--trainer.callbacks+=PostTrainingQuantization",
                "--trainer.callbacks.dirpath=tiny.yaml/a",
            ],
            "cannot be written",
        ),
    ],
)
def test_bad_input_is_one_clear_line(
    config: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    before = set(Path().iterdir()) | {
        Path("config.yaml")
    }  # Lightning saves the config it was given
    given = words if words[0][0] != "-" else ["fit", "--config", str(config), *words]
    assert main(given) == 2
    (line,) = [t for t in capsys.readouterr().err.splitlines() if t.startswith("error: ")]
    assert message in line
    assert set(Path().iterdir()) <= before


SCAN = ["scan", "--config", "quickstart.yaml", "--trainer.logger=false"]
SCAN += ["--trainer.callbacks=null", "--model.stem=imagenet"]  # the imagenet stem is faster


def test_scan_takes_its_options_from_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--levels", "[0,0.5]", "--images", "40", "--tolerance=0.5", "--granularity=original"]
    words += ["--include", "[model.conv1.*,model.fc]", "--dirpath=found", "--monitor=val_acc"]
    assert main([*SCAN, *words]) == 0
    printed = capsys.readouterr().out
    assert "all layers" in printed
    assert "val_acc" in printed
    rules = yaml.safe_load(Path("found/rules.yaml").read_text())
    assert [rule["pattern"] for rule in rules] == ["model.conv1.0", "model.fc"]
    with Path("found/scan.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["layer"], row["ratio"]) for row in rows} == {
        (layer, ratio) for layer in ("*", "model.conv1.0", "model.fc") for ratio in ("0.0", "0.5")
    }
    # What it found is what pruning takes.
    rule = ["--trainer.callbacks+=RulePruning", "--trainer.callbacks.rules=found/rules.yaml"]
    rule += ["--trainer.callbacks.schedule.last=0", "--trainer.callbacks.shrink=never"]
    words = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=1"]
    assert main(["fit", *SCAN[1:], *rule, *words, "--trainer.limit_val_batches=1"]) == 0


def test_scan_takes_its_options_from_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = {
        "levels": [0.5, 0.25, 1],
        "images": None,
        "exclude": ["regex:model[.](?!fc).*"],
        "curves": False,
        "tolerance": 1,
    }
    Path("scan.yaml").write_text(yaml.safe_dump(options))
    limit = ["--data.val_fraction=0.03"]
    assert main([*SCAN, "--config", "scan.yaml", *limit]) == 0
    assert not list(Path("scan").glob("*.png"))
    assert "ratio: 0.5" in Path("scan/rules.yaml").read_text()
    assert main([*SCAN, "--config", "scan.yaml", *limit, "--images", "null", "--levels=[0.9]"]) == 0
    assert "ratio: 0.9" in Path("scan/rules.yaml").read_text()


@pytest.mark.filterwarnings("ignore:Total length of:UserWarning")  # Lightning's, of no batch
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--levels=[0,1.5]"], "levels must be numbers in [0, 1], got 1.5"),
        (["--levels=much"], "levels: "),
        (["--granularity=row"], "granularity: expected value of 'element', 'filter', 'original'"),
        (["--monitor=acc"], "monitor 'acc' is not logged by the validation; it logs: val_acc"),
        (["--include=[model.conv9]"], "the pattern 'model.conv9' matches no conv or linear layer"),
        (["--ckpt_path=none.ckpt"], "there is no checkpoint"),
        (["--data.val_fraction=0"], "there is no validation data to scan on"),
        (["--images=0"], "images must be a whole number of at least 1"),
        (["--dirpath=file/scan"], "dirpath file/scan cannot be created"),
    ],
)
def test_a_scan_that_cannot_be_made_is_one_clear_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    few = [] if "val_fraction" in words[0] else ["--data.val_fraction=0.03"]
    assert main([*SCAN, *few, *words]) == 2
    (line,) = [t for t in capsys.readouterr().err.splitlines() if t.startswith("error: ")]
    assert message in line
    assert not Path("scan").exists()


def test_ctrl_c_in_a_scan_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("lit_compress.cli._dispatch", stopped)
    assert main(SCAN) == 130
    assert "error: interrupted; the rows so far are kept" in capsys.readouterr().err
    assert main(["fit"]) == 130
    assert "the last checkpoint is kept" in capsys.readouterr().err


def test_a_broken_config_names_the_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.yaml").write_text("trainer: {max_epochs: [1\n")
    assert main(["fit", "--config", "broken.yaml"]) == 2
    assert "the config is not YAML" in capsys.readouterr().err


def test_debug_shows_where(config: Path) -> None:
    with pytest.raises(Exception, match="target must be in"):
        main(["fit", "--debug", "--config", str(config), "--trainer.callbacks.target=7"])


def test_python_m_is_the_same() -> None:
    words = [sys.executable, "-m", "lit_compress", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == f"lit-compress {lit_compress.__version__}\n"


def start(words: list[str], **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lit_compress", "fit", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}

    def hear_ctrl_c() -> None:  # a shell lets the jobs in its background ignore it
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(command, preexec_fn=hear_ctrl_c, **(pipes | options))


def output_of(process: subprocess.Popen[str], seconds: int) -> str:
    """Return what a process printed; kill it, and fail, if it does not end in time."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"it still ran after {seconds} s: {process.communicate()[0]}")


@pytest.mark.slow
def test_ctrl_c_leaves_the_last_checkpoint_and_no_half_artefact(config: Path) -> None:
    words = ["--config", str(config), "--trainer.max_epochs=500", "--trainer.logger=true"]
    process = start([*words, "--config", "quantize.yaml"])
    checkpoints = Path("lightning_logs/version_0/checkpoints")
    deadline = time.monotonic() + 300
    while not list(checkpoints.glob("*.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output = output_of(process, 300)
    assert process.returncode == 130, output
    assert "error: interrupted; the last checkpoint is kept" in output
    (path,) = checkpoints.glob("*.ckpt")
    assert torch.load(path, weights_only=True)["state_dict"]
    assert "of 0.50: the run ended before its schedule did" in output
    assert not list(Path("lightning_logs").rglob("*artifact*"))


@pytest.mark.slow
def test_two_processes_end_with_equal_weights_and_one_artefact(config: Path) -> None:
    words = ["--config", str(config), "--config", "quantize.yaml", "--trainer.logger=true"]
    words += ["--trainer.callbacks+=test_cli.SaveEachRank", "--trainer.devices=2"]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = start([*words, "--trainer.strategy=ddp"], env=dict(os.environ, PYTHONPATH=path))
    output = output_of(process, 240)
    assert process.returncode == 0, output
    first, second = (torch.load(f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert sum(int((v == 0).sum()) for v in first.values() if v.dim() > 1) > 100_000
    assert len(list(Path("lightning_logs").rglob("card.json"))) == 1


@pytest.mark.parametrize(
    ("given", "meant"),
    [("quickstrat.yaml", "quickstart.yaml"), ("configs/prune_filter.yaml", "prune_filters.yaml")],
)
def test_a_mistyped_config_gets_a_suggestion(
    given: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """jsonargparse said that the text is no file, and no mapping either."""
    assert main(["fit", "--config", given]) == 2
    assert capsys.readouterr().err == f"error: there is no config {given}: did you mean {meant}?\n"


def test_an_option_behind_a_part_is_one_of_its_pruning_callback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It reached the ModelCheckpoint, which stood last in the part."""
    words = ["--config", "shufflenet_v2_fashion_mnist.yaml", "--config", "prune_filters.yaml"]
    with pytest.raises(SystemExit):
        main(["fit", *words, "--trainer.callbacks.target=0.3", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    (pruner,) = [c for c in config["trainer"]["callbacks"] if "FilterPruning" in c["class_path"]]
    assert pruner["init_args"]["target"] == 0.3


def test_a_config_whose_aliases_stand_for_billions_of_values_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """700 bytes of YAML kept the command busy until it was killed."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for one, two in zip("abcdefghi", "bcdefghij", strict=True):
        lines.append(f"{two}: &{two} [{', '.join([f'*{one}'] * 10)}]")
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    assert main(["fit", "--config", str(tmp_path / "bomb.yaml")]) == 2
    assert "aliases stand for more than 100,000 values" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"\x00\x01\xff", b"a: &a [*a]", b"[" * 100])
def test_a_file_that_is_no_config_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "odd.yaml").write_bytes(content)
    assert main(["fit", f"--config={tmp_path / 'odd.yaml'}"]) == 2
    assert "odd.yaml cannot be read" in capsys.readouterr().err
