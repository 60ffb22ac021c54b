from __future__ import annotations

from lit_compress.artifact import Card, Variant
from lit_compress.runtimes import FormatFile, Port


def test_a_card_keeps_the_formats() -> None:
    port = Port("x", (3, -1), "float32", True)
    file = FormatFile(
        "litert",
        ("model-b1.tflite",),
        7,
        (port,),
        (Port("y", (), "int64", False),),
        batch=1,
        sqnr_db=30.5,
        agreement=1.0,
        metric=0.5,
        notes=("a note",),
        metadata={"lit_compress.size": "3"},
    )
    card = Card("run", (Variant("int8", 1, 1, formats=(file,)),), {})
    (variant,) = Card.from_json(card.to_json()).variants
    assert variant.formats == (file,)
    assert file.name == "litert, batch 1"
