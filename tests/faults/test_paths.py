"""Folders with names that files rarely have, and folders that may only be read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

import lit_compress
from lit_compress import Schedule
from lit_compress.callbacks import (
    CompressionReport,
    PostTrainingQuantization,
    RulePruning,
)
from lit_compress.cli import main

# Lightning 2.6 calls what jsonargparse 5 will remove: lit_compress pins jsonargparse below 5.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore:Checkpoint directory:UserWarning",
    "ignore:The dirpath has changed:UserWarning",
)

#: Longest path in bytes on Linux, with its closing zero; the longest names of our own files below.
LONGEST, OWN = 4096, 120


def named(folder: Path, name: str) -> Path:
    """Return a folder in another that is named so; ``deep`` is one with a very long path."""
    if name != "deep":
        return folder / name
    while len(os.fsencode(folder)) < LONGEST - OWN - 102:
        folder = folder / ("d" * 100)
    return folder


NAMES = [
    "Größe Ωμέγα 模型 🙂",
    "with  spaces 'and' \"quotes\"",
    "a%20b#c?d&e=[f]{g}",
    "n" * 250,
    "deep",
]


IDS = ["letters", "spaces", "signs", "long name", "long path"]
#: The nightly tests have the others: each is a whole fit.
ALWAYS = ("letters", "long path")


@pytest.fixture(
    params=[
        pytest.param(name, id=called, marks=[] if called in ALWAYS else pytest.mark.slow)
        for name, called in zip(NAMES, IDS, strict=True)
    ]
)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    found = named(tmp_path, request.param)
    found.mkdir(parents=True)
    return found


def fitted(folder: Path, epochs: int = 3, **options: object) -> ForeignModule:
    """Fit by a rule file, convert and report in a folder."""
    seed_everything(0, verbose=False)
    (folder / "rules.yaml").write_text("- {pattern: net.3, ratio: 0.5, granularity: filter}\n")
    parts = [
        RulePruning(rules=str(folder / "rules.yaml"), schedule=Schedule(1, 1)),
        PostTrainingQuantization(dirpath=str(folder / "artifact")),
        CompressionReport(),
        ModelCheckpoint(folder / "kept", save_last=True),
    ]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=parts,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = ForeignModule()
    trainer.fit(module, loader(), loader(64, 1), **options)  # type: ignore[arg-type]
    return module


def test_a_fit_writes_and_reads_its_files_in_any_folder(folder: Path) -> None:
    module = fitted(folder)
    assert module.net[3].out_channels == 6
    batch = np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32)
    outputs = lit_compress.load(folder / "artifact")(batch)
    assert np.array_equal(
        lit_compress.load(str(folder / "artifact"), weights="int8")(batch), outputs
    )
    assert lit_compress.load(folder / "artifact", weights="fp32")(batch).shape == outputs.shape
    last = folder / "kept" / "last.ckpt"
    restored = lit_compress.restore(folder / "artifact", ForeignModule)
    loaded = lit_compress.load_from_checkpoint(ForeignModule, last)
    for name, tensor in module.state_dict().items():
        assert torch.equal(restored.state_dict()[name], tensor), name
        assert torch.equal(loaded.state_dict()[name], tensor), name
    fitted(folder, 4, ckpt_path=last)
    assert lit_compress.load(folder / "artifact").card.variant("int8").epoch == 4
    hidden = [path.name for path in folder.rglob(".*")]
    assert not hidden


def test_a_scan_writes_its_files_in_any_folder(folder: Path) -> None:
    target = folder / "scan"
    found = lit_compress.scan(
        ForeignModule(),
        loader(32, 1),
        monitor="my_loss",
        dirpath=str(target),
        levels=[0.5],
        progress=False,
    )
    assert found.rows
    assert yaml.safe_load((target / "rules.yaml").read_text("utf-8")) is not None
    module = ForeignModule()
    preview = RulePruning(rules=str(target / "rules.yaml")).describe(
        module, torch.zeros(2, 1, 8, 8)
    )
    assert preview is not None


@pytest.mark.slow
def test_the_command_line_works_in_any_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Path(__file__).parent
    monkeypatch.syspath_prepend(str(here.parent))
    fit = yaml.safe_load((here / "small_fit.yaml").read_text("utf-8"))
    fit["trainer"]["logger"]["init_args"]["save_dir"] = str(folder)
    config = folder / "fit.yaml"
    config.write_text(yaml.safe_dump(fit, allow_unicode=True), "utf-8")
    assert main(["fit", "--config", str(config)]) == 0
    run = folder / "runs" / "run"
    last = run / "checkpoints" / "last.ckpt"
    assert (
        main(
            [
                "validate",
                "--config",
                str(config),
                "--ckpt_path",
                str(last),
                "--trainer.logger=false",
            ]
        )
        == 0
    )
    page = folder / "page.html"
    assert main(["report", "--runs", str(folder), "--output", str(page)]) == 0
    assert page.is_file()
    assert lit_compress.load(run / "artifact").card.pruning


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a fit."""
    folder = tmp_path_factory.mktemp("read only")
    fitted(folder)
    return folder


@pytest.fixture
def read_only(written: Path) -> Iterator[Path]:
    """Return a folder of a fit that nobody may write, and nothing below it."""
    paths = [written, *written.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield written
    for path, mode in modes.items():
        path.chmod(mode)


READER = """
import os, sys
import numpy as np
import lit_compress
folder, user = sys.argv[1], int(sys.argv[2])
if user:
    lit_compress.load(folder + "/artifact")  # all is imported that the user may not read
    os.setgid(user)
    os.setuid(user)
assert not os.access(folder, os.W_OK), "the folder can be written"
net = lit_compress.load(folder + "/artifact")
print(float(net(np.ones((2, *net.input_shape), net.input_dtype)).sum()).hex())
assert lit_compress.load(folder + "/artifact", weights="fp32").card.run
"""
#: A user without rights, for tests that the superuser runs.
NOBODY = 65534


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="this system has no users of that kind")
def test_an_artefact_is_loaded_from_a_folder_that_may_only_be_read(read_only: Path) -> None:
    user = NOBODY if os.geteuid() == 0 else 0
    opened = [path for path in (read_only, *read_only.parents) if user]
    private = [path for path in opened if not path.stat().st_mode & 0o001]
    for path in private:
        path.chmod(path.stat().st_mode | 0o011)
    try:
        found = subprocess.run(
            [sys.executable, "-c", READER, str(read_only), str(user)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    finally:
        for path in private:
            path.chmod(path.stat().st_mode & ~0o011)
    assert found.returncode == 0, found.stderr[-2000:]
    net = lit_compress.load(read_only / "artifact")
    expected = float(net(np.ones((2, *net.input_shape), net.input_dtype)).sum())
    assert found.stdout.strip() == expected.hex()


def test_checkpoints_and_rules_are_read_from_a_folder_that_may_only_be_read(
    read_only: Path,
) -> None:
    before = {path: path.stat().st_mtime_ns for path in read_only.rglob("*")}
    module = lit_compress.load_from_checkpoint(ForeignModule, read_only / "kept" / "last.ckpt")
    restored = lit_compress.restore(read_only / "artifact", ForeignModule)
    assert restored.net[3].out_channels == module.net[3].out_channels == 6
    rules = RulePruning(rules=str(read_only / "rules.yaml"))
    assert rules.describe(ForeignModule(), torch.zeros(2, 1, 8, 8)) is not None
    assert {path: path.stat().st_mtime_ns for path in read_only.rglob("*")} == before
