"""Convert known weights in a process of its own: conversion_program.py FOLDER THREADS."""

import sys
import warnings

import torch
from conftest import ForeignModule, loader
from lightning.pytorch import seed_everything

from lit_compress.trainer import Trainer

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(sys.argv[2]))
    seed_everything(0, verbose=False)
    module = ForeignModule()
    quiet = {"logger": False, "enable_progress_bar": False, "default_root_dir": sys.argv[1]}
    Trainer(accelerator="cpu", **quiet).quantize(
        module, dataloaders=loader(256, 1), monitor="my_acc", dirpath=sys.argv[1]
    )
