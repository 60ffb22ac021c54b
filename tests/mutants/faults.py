"""Small faults for a module's source: each mutant is the source with one of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import unified_diff

FLIPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
#: Parts of a node in which a fault changes no behaviour that a test should see.
SKIPPED = {"annotation", "returns", "decorator_list"}

#: The code to replace, and its new text; an empty text drops a statement.
Fault = tuple[ast.expr | ast.stmt, str]


@dataclass(frozen=True)
class Mutant:
    """A module with one fault.

    Attributes:
        path: The module's path in the repository.
        line: Number of the changed line, from 1.
        name: Path, function, the code before and after; the same while other lines move.
        before: The module's source.
        source: The source with the fault.
    """

    path: str
    line: int
    name: str
    before: str
    source: str

    def diff(self) -> str:
        """Return the changed lines."""
        old, new = self.before.splitlines(), self.source.splitlines()
        lines = list(unified_diff(old, new, lineterm="", n=0))[3:]
        return "\n".join(f"    {line}" for line in lines)


def mutants_of(path: str, source: str) -> list[Mutant]:
    """Return a module's mutants, in the order of its lines."""
    found: dict[str, Mutant] = {}
    for scope, (node, text) in _walk(ast.parse(source), ""):
        before = ast.unparse(node)
        after = text or "pass"
        name = f"{path} {scope or '<module>'}: {before} -> {after}".replace("\n", " ")
        same = sum(other == name or other.startswith(f"{name} #") for other in found)
        name += f" #{same + 1}" if same else ""
        changed = _replaced(source, node, after)
        found[name] = Mutant(path, node.lineno, name, source, changed)
    return list(found.values())


def _walk(node: ast.AST, scope: str) -> Iterator[tuple[str, Fault]]:
    """Yield the faults below a node, with the function or class that they are in."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        scope = f"{scope}.{node.name}".strip(".")
    for fault in _faults(node):
        yield scope, fault
    for field, value in ast.iter_fields(node):
        if field in SKIPPED or isinstance(value, ast.JoinedStr):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield from _walk(child, scope)


def _faults(node: ast.AST) -> Iterator[Fault]:
    """Yield the faults that begin at one node."""
    match node:
        case ast.Expr(ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break():
            yield node, ""
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield node, ""
        case ast.Return(ast.expr() as value) if ast.unparse(value) != "None":
            yield value, "None"
        case ast.If(test) | ast.While(test):
            yield test, f"(not ({ast.unparse(test)}))"
        case ast.IfExp(test, body, other):
            yield node, _text(ast.IfExp(test, other, body))
        case ast.comprehension(ifs=conditions):
            yield from ((condition, "True") for condition in conditions)
        case ast.Call(ast.Name(name) as function) if name in NAMES:
            yield function, NAMES[name]
        case ast.Constant() | ast.UnaryOp() | ast.Slice():
            yield from _operand_faults(node)
        case ast.Compare() | ast.BinOp() | ast.BoolOp():
            yield from _operator_faults(node)


def _operand_faults(node: ast.AST) -> Iterator[Fault]:
    match node:
        case ast.Constant(bool() as value):
            yield node, str(not value)
        case ast.Constant(int() as value):
            yield node, str(value + 1)
        case ast.Constant(float() as value):
            yield node, str(value * 10 or 1.0)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield node, _text(operand)
        case ast.Slice(lower, upper, step):
            if lower is not None:
                yield node, ast.unparse(ast.Slice(None, upper, step))
            if upper is not None:
                yield node, ast.unparse(ast.Slice(lower, None, step))


def _operator_faults(node: ast.AST) -> Iterator[Fault]:
    match node:
        case ast.Compare(left, ops, comparators):
            for i, op in enumerate(ops):
                flipped = [*ops[:i], FLIPS[type(op)](), *ops[i + 1 :]]
                yield node, _text(ast.Compare(left, flipped, comparators))  # type: ignore[arg-type]
        case ast.BinOp(left, op, right) if type(op) in FLIPS and not _is_text(left, right):
            yield node, _text(ast.BinOp(left, FLIPS[type(op)](), right))  # type: ignore[arg-type]
        case ast.BoolOp(op, values):
            yield node, _text(ast.BoolOp(FLIPS[type(op)](), values))  # type: ignore[arg-type]


def _text(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"


def _is_text(*nodes: ast.expr) -> bool:
    return any(
        isinstance(n, ast.JoinedStr) or (isinstance(n, ast.Constant) and isinstance(n.value, str))
        for n in nodes
    )


def _replaced(source: str, node: ast.expr | ast.stmt, text: str) -> str:
    lines = source.encode().splitlines(keepends=True)
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    head = b"".join(lines[:first]) + lines[first][: node.col_offset]
    tail = lines[last][node.end_col_offset :] + b"".join(lines[last + 1 :])
    return (head + text.encode() + tail).decode()
