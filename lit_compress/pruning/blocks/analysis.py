"""Find the residual blocks of a network that can be removed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from torch import nn

from lit_compress.errors import ChannelError
from lit_compress.measure.cost import Inputs, cost, forward_arguments, one_example
from lit_compress.pruning.blocks.block import Block, BlockGraph
from lit_compress.pruning.blocks.branches import Branch, branch_of, is_zero, sums_of
from lit_compress.pruning.blocks.flow import Flow, ModuleCall
from lit_compress.pruning.blocks.safety import why_needed, why_not
from lit_compress.pruning.blocks.sums import JOINS, Chain, chain_of, kind_of
from lit_compress.pruning.blocks.surgery import without
from lit_compress.pruning.blocks.trial import failure_without
from lit_compress.pruning.channels.checks import check_module
from lit_compress.pruning.channels.runs import restored, run_of, undisturbed
from lit_compress.pruning.channels.tracing.labels import Reason
from lit_compress.pruning.channels.trials.outputs import tensors_in

_NO_NODES = """
batch_norm dropout dropout1d dropout2d dropout3d stochastic_depth contiguous clone detach relu relu6
hardtanh identity
"""
#: Calls that leave no node of their own in a file: a runtime folds or fuses them.
NO_NODES = frozenset(_NO_NODES.split())


def find_blocks(
    model: nn.Module,
    example_inputs: Inputs,
    submodule: str = "",
    only: Collection[str] | None = None,
) -> BlockGraph:
    """Find the residual blocks of a network that can be removed; the network is not changed.

    A block adds a branch to its input. It is found by running the forward once, and tried: the
    network without it must compute what the network with zeros in place of the branch does.

    Args:
        model: Any module.
        example_inputs: Inputs of its forward: a tensor, a tuple, or a mapping of keywords.
        submodule: Name of the part whose forward takes them. Default: the module itself.
        only: Names of the blocks to look for, whose MACs are not counted. Default: all.

    Raises:
        ChannelError: If the forward fails, or returns no tensor.

    Example:
        >>> import torch
        >>> class Block(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.branch = nn.Linear(4, 4)
        ...     def forward(self, x):
        ...         return x + self.branch(x)
        >>> net = nn.Sequential(nn.Linear(3, 4), Block(), Block(), nn.Linear(4, 2))
        >>> graph = find_blocks(net, torch.ones(1, 3))
        >>> [(block.name, block.parameters, block.macs) for block in graph.blocks.values()]
        [('1', 20, 16), ('2', 20, 16)]
    """
    check_module(model)
    with undisturbed(model):
        return _Search(model, example_inputs, submodule, only).graph()


class _Search:
    """The search for the blocks of a network; the arguments are those of :func:`find_blocks`."""

    def __init__(
        self, model: nn.Module, inputs: Inputs, submodule: str, only: Collection[str] | None
    ) -> None:
        self._model, self._path, self._only = model, submodule, only
        self._called = model.get_submodule(submodule)
        self._runs = [run_of(model, self._called, *forward_arguments(inputs))]
        self._blocks: dict[str, Block] = {}
        self._kept: dict[str, str] = {}
        self._flow = self._followed()
        with restored(model, ()):
            self._one, _ = one_example(self._called, inputs)
        if self._one is not inputs:  # what unpacks a tensor may take a batch of two for a pair
            self._runs.append(run_of(model, self._called, *forward_arguments(self._one)))
        self._macs = self._count_macs() if only is None else 0

    def _followed(self) -> Flow:
        flow, kind = Flow(self._model), type(self._model).__name__
        try:
            with flow.watching():
                tensors = tensors_in(self._runs[0]())
        except Exception as error:
            raise ChannelError(
                f"the forward of {kind} fails on the example inputs: {type(error).__name__}: "
                f"{str(error).partition(chr(10))[0]}"
            ) from error
        if not tensors:
            raise ChannelError(
                f"the forward of {kind} returns no tensor: give a module whose forward returns "
                "tensors"
            )
        flow.outputs = tuple(map(flow.value, tensors))
        return flow

    def graph(self) -> BlockGraph:
        """Return the blocks."""
        modules: dict[str, tuple[ModuleCall, Chain]] = {}
        loose: dict[int, str] = {}
        for add in sums_of(self._flow):
            found = self._innermost(add)
            if found is None:
                loose[add] = self._flow.owner(self._flow.calls[add])
            else:
                modules[found[0].name] = found
        for module, chain in modules.values():
            self._add_module(module, chain)
        for add, owner in loose.items():
            self._add_branch(add, owner)
        self._note_joins()
        kept = {name: why for name, why in self._kept.items() if not self._is_within_a_block(name)}
        parameters = sum(p.numel() for p in self._called.parameters())
        nodes = self._nodes(range(len(self._flow.calls)))
        return BlockGraph(self._blocks, kept, parameters, self._macs, nodes)

    # --- the block of a sum ----------------------------------------------------------------------

    def _innermost(self, add: int) -> tuple[ModuleCall, Chain] | None:
        """Return the innermost module that adds a branch to its input by a sum."""
        noted = False
        for position in reversed(self._flow.calls[add].within):
            module = self._flow.modules[position]
            if module.name in ("", self._path) or next(module.module.parameters(), None) is None:
                continue
            chain = chain_of(self._flow, module)
            if isinstance(chain, Chain) and add in dict(chain.adds):
                return module, chain
            if not noted and isinstance(chain, Reason):
                self._kept.setdefault(module.name, str(chain))
            noted = True
        return None

    def _add_module(self, module: ModuleCall, chain: Chain) -> None:
        """Add the block that a module is, or the branches of a module that adds several."""
        name = module.name
        own = [add for add, _ in chain.adds if self._innermost(add) == (module, chain)]
        left = [add for add, at in chain.adds if not is_zero(self._flow, add, at)]
        kind = kind_of(self._flow, module, chain)
        why = why_not(self._model, self._flow, [name]) or why_needed(self._flow, name)
        if len(left) > 1:
            found = [self._add_branch(add, name) for add in own if add in left]
            if any(found):
                return
        if isinstance(kind, Reason) or why is not None:
            self._kept.setdefault(name, str(kind if isinstance(kind, Reason) else why))
            return
        last = branch_of(self._flow, left[0]) if len(left) == 1 < len(chain.adds) else None
        # With the last branch of several, all of the module goes.
        title = last.last if isinstance(last, Branch) else name
        nodes = self._nodes(range(module.start, module.end))
        block = Block(title, {name: kind}, self._parameters([name]), 0, nodes, dict(chain.adds))
        if not self._try(block) and last is not None:
            self._add_branch(left[0], name)

    def _add_branch(self, add: int, owner: str) -> bool:
        """Add the branch of a sum, and tell whether it can be removed."""
        branch = branch_of(self._flow, add)
        if isinstance(branch, Reason):
            self._kept.setdefault(owner, str(branch))
            return False
        names = list(branch.lengths)
        if not (parameters := self._parameters(names)):
            return False
        if (why := why_not(self._model, self._flow, names)) is not None:
            self._kept[branch.last] = str(why)
            return False
        nodes = self._nodes({*branch.dead, add})
        block = Block(branch.last, {}, parameters, 0, nodes, {add: branch.position})
        if not any(self._try(replace(block, kinds=branch.kinds(z))) for z in ("zero", "zeros")):
            return False
        self._kept.pop(owner, None)  # it cannot go as a whole, and its branch can
        return True

    def _try(self, block: Block) -> bool:
        """Remove a block on trial, and add it if nothing else changes."""
        if self._only is not None and block.name not in self._only:
            return True
        failure = failure_without(self._model, self._runs, block.kinds, block.cuts)
        if failure is not None:
            self._kept[block.name] = failure
            return False
        if self._only is None:
            with without(self._model, block.kinds):
                block = replace(block, macs=max(0, self._macs - self._count_macs()))
        self._blocks[block.name] = block
        for name in (block.name, *block.kinds):
            self._kept.pop(name, None)
        return True

    # --- costs and reasons -----------------------------------------------------------------------

    def _count_macs(self) -> int:
        with restored(self._model, ()):
            return cost(self._called, self._one).macs

    def _parameters(self, names: Iterable[str]) -> int:
        parts = [self._model.get_submodule(name) for name in names]
        return sum(parameter.numel() for part in parts for parameter in part.parameters())

    def _nodes(self, calls: Iterable[int]) -> int:
        return sum(self._flow.calls[number].name not in NO_NODES for number in calls)

    def _is_within_a_block(self, name: str) -> bool:
        """Tell whether a module goes with a block, so that its reason is of no interest."""
        parts = {one for block in self._blocks.values() for one in block.kinds}
        return any(name == one or name.startswith(f"{one}.") for one in parts)

    def _note_joins(self) -> None:
        """Note the modules that join branches without a sum."""
        for call in self._flow.calls:
            owner = self._flow.owner(call)
            known = owner in self._kept or owner in self._blocks or owner in ("", self._path)
            if call.name in JOINS and not known:
                why = call.reason("joins its branches, and does not add them", "")
                self._kept[owner] = str(why)
