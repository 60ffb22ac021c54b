"""Pack an artefact: the same folder with packed networks, which ``load`` takes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from lit_compress.artifact.card import Card
from lit_compress.artifact.folder.card import read_card
from lit_compress.artifact.folder.checksums import check_files
from lit_compress.artifact.folder.names import FP32, MODEL, packed_name
from lit_compress.artifact.replay import REPLAY
from lit_compress.artifact.write import check_target, folder_swap, sha256, write_card
from lit_compress.errors import ArtifactError, InvalidArgumentError
from lit_compress.files.reading import read_limited
from lit_compress.packed.four_bits import round_onnx
from lit_compress.packed.layout import parse
from lit_compress.packed.measured import check_cost, measure_cost, rounded_variant
from lit_compress.packed.model import onnx_content, pack_onnx
from lit_compress.runtimes.onnx import LARGEST

Weights = Literal["int8", "fp32", "all"]
NETWORKS: dict[str, tuple[str, ...]] = {
    "int8": (MODEL,),
    "fp32": (FP32,),
    "all": (MODEL, FP32),
}
#: The float weights, which a packed artefact does not have.
FLOAT_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class PackedFile:
    """What packing made of a file.

    Attributes:
        name: Name of the packed file.
        before: Bytes of the ONNX file.
        after: Bytes of the packed file.
        graph: Those of them that are no weights: header, index, and the graph of the network.
        sqnr_db: With 4 bits, the SQNR of the outputs for the stored inputs against the float
            network in dB; None if the network computes as before.
        sqnr_before_db: That of the file before; None without 4 bits.
    """

    name: str
    before: int
    after: int
    graph: int
    sqnr_db: float | None = None
    sqnr_before_db: float | None = None


def pack(
    artifact: str | Path,
    target: str | Path,
    bits: Literal[8, 4] = 8,
    weights: Weights = "int8",
    min_sqnr_db: float | None = None,
) -> tuple[PackedFile, ...]:
    """Write an artefact again with packed networks, in which zeros take almost no space.

    :func:`lit_compress.load` takes the new folder as any artefact. With ``bits=8`` the networks
    come back byte for byte. With ``bits=4`` the weights of the int8 network are rounded to 16
    levels for each output channel, and **its outputs change**: the card then says by how much, and
    has no metric, as none was measured.

    Args:
        artifact: The artefact folder.
        target: The folder to write; an artefact in it is replaced. The float weights
            (``model.safetensors``) and files of other formats than ONNX are not copied.
        bits: Bits of an int8 weight; of 4, the file is expanded to int8 when it is loaded.
        weights: Which networks to keep: ``int8``, ``fp32`` or ``all``.
        min_sqnr_db: Smallest SQNR that 4 bits may have on the stored inputs against the float
            network, in dB; None for no limit.

    Returns:
        The sizes of each packed file.

    Raises:
        ArtifactError: If the folder is not an artefact, lacks the network, a file differs from its
            SHA-256, or the target cannot be written.
        AccuracyError: If the SQNR is below ``min_sqnr_db``. Nothing is written then.
        InvalidArgumentError: If an argument has an impossible value.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import lit_compress
        >>> with TemporaryDirectory() as folder:
        ...     (file,) = pack("examples/digits_int8", folder, bits=4)
        ...     model = lit_compress.load(folder)
        >>> file.name, file.before > 1.7 * file.after
        ('model.packed', True)
        >>> "4 bits" in model.card.variant("int8").note
        True
    """
    _check_arguments(bits, weights, min_sqnr_db)
    source = Path(artifact)
    card = read_card(source)
    check_files(source, card)
    if source.resolve() == Path(target).resolve():
        raise InvalidArgumentError(f"{target} is the artefact itself: name another folder")
    check_target(target)
    names = _networks(source, card, weights)
    done = []
    with folder_swap(target) as folder:
        for name in names:
            if bits == 4 and name == MODEL:
                packed, card, file = _in_four_bits(source, card, min_sqnr_db)
            else:
                content = _onnx_bytes(source / _stored(card, name))
                packed = pack_onnx(content, str(source / name))
                file = _sizes(name, content, packed)
            (folder / file.name).write_bytes(packed)
            card = _with_file(card, name, file)
            done.append(file)
        others = _others(card)
        for other in others:
            shutil.copyfile(source / other, folder / other)
        card = replace(card, variants=tuple(replace(v, formats=()) for v in card.variants))
        kept = [*(file.name for file in done), *others]
        write_card(folder, replace(card, files={name: sha256(folder / name) for name in kept}))
    return tuple(done)


def _in_four_bits(source: Path, card: Card, limit: float | None) -> tuple[bytes, Card, PackedFile]:
    """Return the packed int8 network with 4 bits per weight, and the card that says so."""
    if REPLAY not in card.files:
        raise ArtifactError(
            f"{source} has no {REPLAY}, the stored inputs that measure what 4 bits cost: write the "
            "artefact again, or pack it with bits=8"
        )
    content = _onnx_bytes(source / _stored(card, MODEL))
    rounded = round_onnx(content, str(source / MODEL))
    cost = measure_cost(content, rounded.onnx, source / REPLAY)
    check_cost(cost, limit)
    names = (MODEL, packed_name(MODEL))
    variants = [rounded_variant(v, rounded, cost) if v.file in names else v for v in card.variants]
    file = _sizes(MODEL, content, rounded.packed)
    file = replace(file, sqnr_db=cost.sqnr_db, sqnr_before_db=cost.before_db)
    return rounded.packed, replace(card, variants=tuple(variants)), file


def _sizes(name: str, content: bytes, packed: bytes) -> PackedFile:
    graph = parse(packed, name).head
    return PackedFile(packed_name(name), len(content), len(packed), graph)


def _check_arguments(bits: int, weights: str, min_sqnr_db: float | None) -> None:
    if bits not in (4, 8) or isinstance(bits, bool):
        raise InvalidArgumentError(f"bits must be 8 or 4, got {bits!r}")
    if weights not in NETWORKS:
        raise InvalidArgumentError(f"weights must be one of {', '.join(NETWORKS)}, got {weights!r}")
    if bits == 4 and weights == "fp32":
        raise InvalidArgumentError("bits=4 rounds the int8 network: take weights='int8' or 'all'")
    if min_sqnr_db is not None and bits != 4:
        raise InvalidArgumentError("min_sqnr_db limits bits=4; 8 bits change no output")
    if min_sqnr_db is not None and not np.isfinite(min_sqnr_db):
        raise InvalidArgumentError(f"min_sqnr_db must be a finite number, got {min_sqnr_db!r}")


def _networks(source: Path, card: Card, weights: str) -> list[str]:
    """Return the ONNX names of the networks to pack; all of those that were asked for are there."""
    wanted = NETWORKS[weights]
    if missing := [name for name in wanted if _stored(card, name) not in card.files]:
        raise ArtifactError(
            f"{source} has no {missing[0]}: give weights= one of those that it has, "
            f"{', '.join(card.files) or 'no file'}"
        )
    return list(wanted)


def _stored(card: Card, name: str) -> str:
    """Return the name under which an artefact has a network."""
    return packed_name(name) if packed_name(name) in card.files else name


def _others(card: Card) -> list[str]:
    networks = {name for one in (MODEL, FP32) for name in (one, packed_name(one))}
    formats = {name for variant in card.variants for f in variant.formats for name in f.files}
    return [name for name in card.files if name not in networks | formats | {FLOAT_WEIGHTS}]


def _onnx_bytes(path: Path) -> bytes:
    return onnx_content(read_limited(path, LARGEST, ArtifactError, "a network"), str(path))


def _with_file(card: Card, name: str, file: PackedFile) -> Card:
    """Return the card with the packed file in the place of the ONNX file."""
    names = (name, file.name)
    variants = [
        replace(v, file=file.name, bytes=file.after) if v.file in names else v
        for v in card.variants
    ]
    return replace(card, variants=tuple(variants))
