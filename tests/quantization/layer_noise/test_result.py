from lit_compress.quantization import LayerNoise


def test_faults() -> None:
    assert LayerNoise("a", 20, 30).fault == "weight"
    assert LayerNoise("a", None, 30).fault == "activation"
    assert LayerNoise("a", None, 30).worst_db == 30
