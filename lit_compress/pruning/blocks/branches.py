"""The modules that are needed for one branch of a sum alone, and what can stand in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from lit_compress.pruning.blocks.flow import Flow, ModuleCall, ancestors
from lit_compress.pruning.blocks.stand_in import ZEROS, StandIn
from lit_compress.pruning.blocks.sums import PASSING, is_sum
from lit_compress.pruning.channels.tracing.labels import Reason

_KEEP_ZEROS = """
mul imul rmul div truediv permute transpose swapaxes movedim reshape view flatten unflatten squeeze
unsqueeze getitem chunk split roll neg to float half bfloat16 relu relu6 gelu silu tanh expand
narrow
"""
#: Calls that turn zeros into zeros.
KEEP_ZEROS = PASSING | frozenset(_KEEP_ZEROS.split())


@dataclass(frozen=True)
class Branch:
    """A branch that is added to what it is computed from.

    Attributes:
        add: Number of the call that adds it.
        position: Its position among the two summands.
        dead: Numbers of the calls whose results are needed for it alone.
        last: Name of the module that makes it.
        lengths: By name of a module that is needed for it alone, how many things it returns in a
            tuple; 0 if it returns a tensor.
    """

    add: int
    position: int
    dead: frozenset[int]
    last: str
    lengths: Mapping[str, int]

    def kinds(self, zero: str) -> dict[str, str]:
        """Return what stands in the place of its modules; ``zero`` or ``zeros`` of the last."""
        values = {name: zero if name == self.last else "identity" for name in self.lengths}
        return {n: f"{v}:{self.lengths[n]}" if self.lengths[n] else v for n, v in values.items()}


def needed_calls(flow: Flow, cuts: Mapping[int, int] | None = None) -> frozenset[int]:
    """Return the calls that the outputs of a network are computed by.

    Args:
        flow: The run.
        cuts: By number of a sum, the position of a summand that is left out.
    """
    return frozenset(call for value in flow.outputs for call in ancestors(flow, value, cuts))


def branch_of(flow: Flow, add: int) -> Branch | Reason:
    """Return the branch of a sum: the summand that is computed from the other one.

    Args:
        flow: The run.
        add: Number of the sum.

    Returns:
        The branch, or why there is none that can be removed.
    """
    call = flow.calls[add]
    owner = flow.owner(call)
    found = [at for at in (0, 1) if _comes_from(flow, call.inputs[at], call.inputs[1 - at])]
    if len(found) != 1:
        return call.reason("adds branches, and none of them is computed from the other", owner)
    alive = needed_calls(flow, {add: found[0]})
    dead = needed_calls(flow) - alive
    modules = _dead_modules(flow, dead, alive)
    last = _last_module(flow, dead, modules, call.inputs[found[0]])
    if last is None:
        return call.reason("adds a branch that no module of its own ends", owner)
    lengths = {module.name: module.returns for module in modules}
    if len(lengths) < len(modules):
        return call.reason("adds a branch of a module that is called more than once", owner)
    if any(length < 0 for length in lengths.values()):
        return call.reason("adds a branch of a module that returns no tensor", owner)
    return Branch(add, found[0], dead, last.name, lengths)


def _last_module(
    flow: Flow, dead: frozenset[int], modules: list[ModuleCall], value: int
) -> ModuleCall | None:
    """Return the last module of a branch with weights, if zeros stay zeros from there on."""
    bare: ModuleCall | None = None
    while True:
        module = next((one for one in modules if one.made[:1] == (value,)), None)
        if module is not None and next(module.module.parameters(), None) is not None:
            return module
        bare = bare or module
        number = flow.maker.get(value, -1)
        if number not in dead or flow.calls[number].name not in KEEP_ZEROS:
            return bare
        inputs = flow.calls[number].inputs
        value = next((one for one in inputs if flow.maker.get(one, -1) in dead), -1)


def _comes_from(flow: Flow, value: int, other: int) -> bool:
    """Tell whether a value is computed from another one."""
    if value == other:
        return False
    return any(other in flow.calls[number].inputs for number in ancestors(flow, value))


def _dead_modules(flow: Flow, dead: frozenset[int], alive: frozenset[int]) -> list[ModuleCall]:
    """Return the calls of modules that are needed for nothing, without those within others."""
    found: list[ModuleCall] = []
    for module in flow.modules:
        if found and module.start < found[-1].end and module.end <= found[-1].end:
            continue
        calls = range(module.start, module.end)
        if module.name and any(n in dead for n in calls) and not any(n in alive for n in calls):
            found.append(module)
    return found


def sums_of(flow: Flow) -> list[int]:
    """Return the numbers of the calls that add two tensors."""
    return [number for number, call in enumerate(flow.calls) if is_sum(call)]


def is_zero(flow: Flow, add: int, position: int) -> bool:
    """Tell whether a summand is what stands in the place of a removed branch.

    Args:
        flow: The run.
        add: Number of the sum.
        position: Position of the summand.
    """
    zeros = {call.made[0] for call in flow.modules if call.made and _makes_zeros(call.module)}
    todo = [flow.calls[add].inputs[position]]
    while todo:
        value = todo.pop()
        if value in zeros:
            return True
        number = flow.maker.get(value)
        if number is not None and flow.calls[number].name in KEEP_ZEROS:
            todo += flow.calls[number].inputs
    return False


def _makes_zeros(module: nn.Module) -> bool:
    return isinstance(module, StandIn) and module.kind.partition(":")[0] in ZEROS
