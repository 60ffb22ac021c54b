"""The examples for a cluster and for torchrun, with this machine in the place of the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_compress.artifact import read_card

from .cluster import JOB, ROOT, Cluster
from .started import finished

pytestmark = pytest.mark.slow
SCRIPTS = ROOT / "examples" / "slurm"


def test_a_job_whose_time_is_over_goes_on_in_the_next(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    cluster = Cluster(tmp_path / "cluster")
    cluster.sbatch(
        SCRIPTS / "requeue.sh", runs, 4, nearly_over=lambda: any(runs.glob("checkpoints/*.ckpt"))
    )
    first, second = cluster.jobs
    assert "the signal of SLURM came: a checkpoint is saved between two batches" in first
    assert (tmp_path / "cluster" / "asked").read_text() == f"requeue {JOB}\n"
    assert (runs / "hpc_ckpt_1.ckpt").is_file()
    assert "Restored all states from the checkpoint" in second
    card = read_card(runs / "artifact")
    (pruning,) = card.pruning
    assert pruning["reached"] == pytest.approx(0.5, abs=0.02)
    assert pruning["epochs"] == sorted(set(pruning["epochs"]))
    metric = card.variant("int8").metric
    assert metric is not None
    assert metric.n == 287


def test_an_array_is_a_fit_for_each_target(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "cluster")
    cluster.sbatch(SCRIPTS / "array.sh", tmp_path / "runs", 3)
    assert len(cluster.jobs) == 4
    cards = [read_card(tmp_path / "runs" / target / "artifact") for target in ("0.2", "0.8")]
    assert [card.pruning[0]["target"] for card in cards] == [0.2, 0.8]


def test_torchrun_fits_and_scans_in_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    output = finished([*words, ROOT / "examples" / "torchrun.py"])
    assert output.count("largest ratio") == 1
    assert (tmp_path / "scan" / "rules.yaml").is_file()
    metric = read_card(tmp_path / "artifact").variant("int8").metric
    assert metric is not None
    assert metric.n == 287
