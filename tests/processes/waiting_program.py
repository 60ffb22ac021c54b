"""Two processes, of which the first works alone for long: waiting_program.py FOLDER MODE.

The time-out of the process group is ``TIME_OUT``, and the first process works for 12 seconds. MODE
is ``waits``, ``collective`` (the others wait in a barrier), ``fails`` (it raises an error) or
``dies``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_compress.evaluation.distributed import on_rank_zero
from processes.fit_program import ShortTimeOut

MODE = sys.argv[2]


def work() -> str:
    time.sleep(12)
    if MODE == "fails":
        raise ZeroDivisionError("no luck")
    if MODE == "dies":
        os._exit(9)
    return "done"


class Alone(Callback):
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if MODE == "collective":
            if trainer.is_global_zero:
                work()
            trainer.strategy.barrier()
            return
        said = on_rank_zero(trainer, work, "it sleeps")
        (Path(sys.argv[1]) / str(trainer.global_rank)).write_text(said)


if __name__ == "__main__":
    Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=1,
        callbacks=[ShortTimeOut(), Alone()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(ForeignModule(), loader(32), loader(16, 1))
