"""Keep your own LightningCLI: it finds the callbacks by name. About 10 seconds on a CPU.

    python examples/own_cli.py                   # the configuration below
    python examples/own_cli.py fit --config own_cli.yaml --trainer.max_epochs 6

Shows that no command line of lit-compress is needed: importing lit_compress.callbacks is enough for
the short class names in YAML and on the command line.
"""

import sys

from digits_net import DigitsNet
from lightning.pytorch.cli import LightningCLI

import lit_compress.callbacks  # noqa: F401  (makes the short names of the callbacks known)
from lit_compress.datamodules import DigitsDataModule

CONFIG = """
seed_everything: 0
trainer:
  max_epochs: 4
  accelerator: cpu
  logger: false
  callbacks:
    - class_path: FilterPruning
      init_args: {target: 0.5, of: parameters, schedule: {first: 1}}
    - class_path: CompressionReport
      init_args: {monitor: val_acc, dirpath: report}
data: {batch_size: 64}
"""


def main() -> None:
    """Run the words of the command line, or the configuration above if there are none."""
    words = sys.argv[1:]
    if not words:
        with open("own_cli.yaml", "w", encoding="utf-8") as file:
            file.write(CONFIG)
        words = ["fit", "--config", "own_cli.yaml"]
    LightningCLI(DigitsNet, DigitsDataModule, args=words, save_config_kwargs={"overwrite": True})


if __name__ == "__main__":
    main()
