"""Private names of other libraries that the package uses, each checked by its name.

They may change without notice: after an upgrade, a failure here says which one did.
"""

from __future__ import annotations

import ast
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics import SumMetric

ROOT = Path(__file__).parent.parent / "lit_compress"

#: Found by import or on a class. A module with a private part in its path comes before the colon.
IMPORTED = (
    "lightning.fabric.utilities.data:_set_sampler_epoch",
    "lightning.pytorch:Callback._generate_state_key",
    "lightning.pytorch:Trainer._results",
    "lightning.pytorch.loops.evaluation_loop:_EvaluationLoop",
    "lightning.pytorch.loops.optimization.automatic:_AutomaticOptimization.run",
    "lightning.pytorch.loops.optimization.manual:_ManualOptimization.run",
    "lightning.pytorch.strategies.launchers:_MultiProcessingLauncher",
    "lightning.pytorch.trainer.call:_call_lightning_module_hook",
    "lightning.pytorch.trainer.call:_call_strategy_hook",
    "lightning.pytorch.trainer.connectors.data_connector:_parse_num_batches",
    "lightning.pytorch.trainer.connectors.logger_connector.logger_connector:_LoggerConnector",
    "lightning.pytorch.trainer.connectors.logger_connector.result:_ResultCollection",
    "lightning.pytorch:LightningModule._apply_batch_transfer_handler",
    "lightning.pytorch:LightningModule._on_before_batch_transfer",
    "sys:_getframe",
    "torch:Tensor._version",
    "torch._ops:OpOverload",
    "torch:_C._len_torch_function_stack",
    "torch:_foreach_mul_",
    "torch:ops.aten._addmm_activation",
    "torch:ops.aten._cudnn_rnn",
    "torch:ops.aten._int_mm",
    "torch:ops.aten._native_batch_norm_legit",
    "torch:ops.aten._native_batch_norm_legit_no_training",
    "torch:ops.aten._native_multi_head_attention",
    "torch:ops.aten._scaled_dot_product_attention_math_for_mps",
    "torch:ops.aten._scaled_dot_product_cudnn_attention",
    "torch:ops.aten._scaled_dot_product_efficient_attention",
    "torch:ops.aten._scaled_dot_product_flash_attention",
    "torch:ops.aten._scaled_dot_product_flash_attention_for_cpu",
    "torch:ops.aten._scaled_dot_product_fused_attention_overrideable",
    "torch:ops.aten._transformer_encoder_layer_fwd",
    "torch:ops.aten._trilinear",
    "torch.distributed.distributed_c10d:_get_default_store",
    "torch.nn.modules.batchnorm:_BatchNorm",
    "torch.nn.modules.batchnorm:_NormBase",
    "torch.nn.modules.conv:_ConvNd",
    "torch.nn.modules.conv:_ConvTransposeNd",
    "torch.nn.modules.dropout:_DropoutNd",
    "torch.nn.utils.parametrizations:_SpectralNorm",
    "torch.utils.flop_counter:_FlopCounterMode",
    "torch.utils._pytree:KeyEntry",
    "torch.utils._pytree:TreeSpec",
    "torch.utils._pytree:tree_flatten",
    "torch.utils._pytree:tree_flatten_with_path",
    "torch.utils._pytree:tree_leaves",
    "torch.utils._pytree:tree_map",
    "torch.utils._pytree:tree_unflatten",
    "torchao.quantization.pt2e.quantize_pt2e:_convert_to_reference_decomposed_fx",
    "torchao.quantization.pt2e.quantize_pt2e:_disallow_eval_train",
    "torchao.quantization.pt2e.quantize_pt2e:_quant_node_constraint",
    "torchao.utils:_assert_and_get_unique_device",
)


def quiet_trainer() -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)


def saved() -> LightningModule:
    class Net(LightningModule):
        def __init__(self, width: int = 3) -> None:
            super().__init__()
            self.save_hyperparameters()

    return Net()


#: Set by ``__init__``, so an object is needed to look.
ON_OBJECTS: dict[str, tuple[Callable[[], object], str]] = {
    "Module": (
        nn.Module,
        "_backward_hooks _backward_pre_hooks _buffers _forward_hooks _forward_hooks_always_called "
        "_forward_hooks_with_kwargs _forward_pre_hooks _forward_pre_hooks_with_kwargs "
        "_load_state_dict_pre_hooks _modules "
        "_non_persistent_buffers_set _parameters",
    ),
    "LightningModule": (
        LightningModule,
        "_compiler_ctx _metric_attributes _trainer",
    ),
    "with hyperparameters": (saved, "_hparams_name"),
    "CombinedLoader": (lambda: CombinedLoader([]), "_mode"),
    "OptimizedModule": (lambda: torch.compile(nn.Linear(1, 1)), "_orig_mod"),
    "LightningOptimizer": (
        lambda: LightningOptimizer(torch.optim.SGD([torch.zeros(1)])),
        "_strategy",
    ),
    "OpOverload": (lambda: torch.ops.aten.add.Tensor, "_overloadname _schema"),
    "OpOverloadPacket": (lambda: torch.ops.aten.add, "_qualified_op_name"),
    "Strategy": (
        lambda: SingleDeviceStrategy("cpu"),
        "_lightning_module _lightning_optimizers _optimizers",
    ),
    "_EvaluationLoop": (
        lambda: quiet_trainer().validate_loop,
        "_combined_loader _results",
    ),
    "_SpectralNorm": (
        lambda: spectral_norm(nn.Linear(2, 2)).parametrizations.weight[0],
        "_u _v",
    ),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(4, 2), "_qkv_same_embed_dim"),
    "named tuple": (lambda: namedtuple("Pair", ["a"])(1), "_fields"),
    "Metric": (SumMetric, "_computed _defaults _reductions _update_count"),
    "DataLoader": (lambda: DataLoader([0]), "_iterator"),
    "RichProgressBar": (RichProgressBar, "_progress_stopped"),
    "Trainer.fit_loop": (
        lambda: quiet_trainer().fit_loop,
        "_combined_loader _data_fetcher",
    ),
    "Trainer.fit_loop.epoch_loop": (
        lambda: quiet_trainer().fit_loop.epoch_loop,
        "_batches_that_stepped",
    ),
    "Trainer": (lambda: quiet_trainer(), "_logger_connector _loggers"),
    "Trainer._checkpoint_connector": (
        lambda: quiet_trainer()._checkpoint_connector,
        "_loaded_checkpoint resume_end resume_start restore_callbacks restore_datamodule "
        "restore_model restore_training_state",
    ),
    "EarlyStopping": (lambda: EarlyStopping("loss"), "_check_on_train_epoch_end"),
}
#: In files and graphs that others write: keys of the hyperparameters in a checkpoint of the
#: command line and of Hydra, and a part of a module's path in an exported graph. Tests of their own
#: fail if they change: those of tests/checkpoints, and test_operations.py in tests/quantization.
IN_DATA = {"_class_path", "_instantiator", "_metadata_hook", "_target_"}
#: Of packages that only an extra installs; tests/runtimes/test_executorch.py looks for them.
OF_EXTRAS = {"_threadpool_get_thread_count", "_unsafe_reset_threadpool"}
#: Parts of our own keys, and of names of operations.
NOT_ATTRIBUTES = {
    "_acc",
    "_bytes",
    "_like",
    "_lit_compress_around",
    "_lit_compress_pruned_by",
    "_lit_compress_unpruned",
    "_logged_before",
    "_loss",
    "_pool",
    "_seconds",
    "_step",
    "_with_indices",
}

LISTED = {part for name in IMPORTED for part in name.replace(":", ".").split(".")}
LISTED |= {name for _, names in ON_OBJECTS.values() for name in names.split()} | IN_DATA | OF_EXTRAS


def private(name: str) -> bool:
    return name.isidentifier() and name[0] == "_" and name != "_" and not name.endswith("__")


def defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines: functions, classes, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and ast.unparse(node.value) == "self"
        ):
            yield node.attr


def used(tree: ast.Module, ours: set[str], everywhere: set[str]) -> Iterator[str]:
    """Yield the private names that a module uses and that the package does not define."""
    literals = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
                for part in node.values}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            # What an object of ours is called, only its own module knows.
            known = everywhere if ast.unparse(node.value) in ("self", "cls", "super()") else ours
            yield from {node.attr} - known
        elif isinstance(node, ast.Import):
            yield from (part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith(ROOT.name):
            yield from str(node.module).split(".")
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and node not in literals:
            yield from {str(node.value)} - ours - NOT_ATTRIBUTES


def test_every_private_name_in_use_is_listed() -> None:
    trees = {path: ast.parse(path.read_text("utf-8")) for path in ROOT.rglob("*.py")}
    ours = {path: set(defined(tree)) for path, tree in trees.items()}
    everywhere = set().union(*ours.values())
    found = {
        name: str(path)
        for path, tree in trees.items()
        for name in used(tree, ours[path], everywhere)
        if private(name)
    }
    unknown = {name: path for name, path in found.items() if name not in LISTED}
    assert not unknown, "private names of others, to be listed in this test"
    stale = {name for name in LISTED if private(name)} - found.keys()
    assert not stale, "listed here, but no longer in use"


@pytest.mark.parametrize("name", IMPORTED)
def test_it_can_be_imported(name: str) -> None:
    assert resolve_name(name) is not None


@pytest.mark.parametrize("owner", ON_OBJECTS)
def test_objects_have_it(owner: str) -> None:
    make, names = ON_OBJECTS[owner]
    found = make()
    assert not [f"{owner}.{name}" for name in names.split() if not hasattr(found, name)]


def test_what_a_loop_of_ours_overrides_exists() -> None:
    loop = quiet_trainer().validate_loop
    assert callable(loop._evaluation_step)
    assert {"_last_val_dl_reload_epoch", "_max_batches"} <= vars(loop).keys()


def test_what_a_counter_of_ours_overrides_exists() -> None:
    assert callable(FlopCounterMode._count_flops)
