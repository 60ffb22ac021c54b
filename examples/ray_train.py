"""Compress on a Ray cluster: two workers, and a killed one restarts from the last checkpoint.

    pip install 'ray[train]'
    python examples/ray_train.py [--folder FOLDER]

Ray starts the workers, here on this machine, and joins them to one process group; the callbacks are
those of any DDP fit. After each epoch Ray stores a checkpoint. If a worker dies, Ray starts all of
them again, at most three times, and the fit goes on from the last checkpoint with the filters that
were left. The first worker writes the artefact.
"""

import argparse
from pathlib import Path

import lightning as L
import ray.train
from digits_net import DigitsNet
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.lightning import (
    RayDDPStrategy,
    RayLightningEnvironment,
    RayTrainReportCallback,
    prepare_trainer,
)
from ray.train.torch import TorchTrainer

from lit_compress import Schedule, load
from lit_compress.callbacks import FilterPruning, PostTrainingQuantization
from lit_compress.datamodules import DigitsDataModule

EPOCHS = 6


def fit(config: dict[str, str]) -> None:
    """Fit as one worker: Ray calls it in each of its processes."""
    L.seed_everything(0)
    trainer = L.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        strategy=RayDDPStrategy(),
        plugins=[RayLightningEnvironment()],
        default_root_dir=config["folder"],
        logger=False,
        enable_checkpointing=False,  # RayTrainReportCallback hands checkpoints to Ray
        enable_progress_bar=False,
        callbacks=[
            FilterPruning(0.5, schedule=Schedule(first=1, last=2)),
            PostTrainingQuantization(monitor="val_acc"),
            RayTrainReportCallback(),
        ],
    )
    trainer = prepare_trainer(trainer)
    net, data = DigitsNet(), DigitsDataModule(batch_size=64)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        trainer.fit(net, data)
        return
    with checkpoint.as_directory() as folder:  # a worker died
        path = Path(folder, RayTrainReportCallback.CHECKPOINT_NAME)
        print(f"the fit goes on from {path.parent.name}", flush=True)
        trainer.fit(net, data, ckpt_path=path)


def main() -> None:
    """Fit on two workers, and open the file that they leave."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("ray_digits"))
    folder = parser.parse_args().folder.absolute()
    result = TorchTrainer(
        fit,
        train_loop_config={"folder": str(folder)},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name="digits",
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    ).fit()
    print(f"val_acc {result.metrics['val_acc']:.3f} after epoch {result.metrics['epoch']}")
    print(load(folder / "artifact").card)


if __name__ == "__main__":
    main()
