"""The foreign networks that are pruned and quantised, by name; none is left out of the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.handwritten import HANDWRITTEN

#: Side of the images in pixels, and of those that a network needs larger.
SIDE, LARGE = 64, 224

_TIMM = """
vit_tiny_patch16_224 deit_tiny_patch16_224 convnext_atto convnextv2_atto resnetv2_50x1_bit
eca_nfnet_l0 dm_nfnet_f0 cspdarknet53 cs3darknet_s res2net50_26w_4s cait_xxs24_224 gmlp_s16_224
mambaout_femto repghostnet_050 regnetz_b16 resnetblur50 mixer_s32_224 levit_128s
swin_tiny_patch4_window7_224 xcit_nano_12_p16_224 lambda_resnet26t efficientnet_b0
mobilenetv3_small_100 ghostnet_100 hrnet_w18_small dpn68 mobilevit_xxs resnest14d
"""
TIMM = tuple(_TIMM.split())
#: Networks of timm that are built for images of one size.
_SIZED = ("cait", "gmlp", "mixer", "levit", "xcit", "vit_", "deit")

_CLASSIFIERS = "resnet18 vgg11_bn mobilenet_v2 shufflenet_v2_x0_5 densenet121 vit_b_16"
TORCHVISION = (
    *_CLASSIFIERS.split(),
    *("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"),
    *("ssdlite320_backbone", "fasterrcnn_backbone", "r3d_18"),
)
SMP = ("Unet", "FPN", "DeepLabV3Plus", "Linknet")
HUGGING_FACE = (
    *("bert", "gpt2", "distilbert", "roberta", "llama", "vit", "segformer", "resnet"),
    *("mobilenet_v2", "wav2vec2"),
)


@dataclass(frozen=True)
class Entry:
    """One network.

    Attributes:
        name: Its library and name.
        build: Builds it, with random weights.
        shape: Shape of one input.
        tokens: Number of different words, if its inputs are words; else 0.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    tokens: int = 0

    def inputs(self, count: int) -> Tensor:
        """Return some random inputs."""
        if self.tokens:
            return torch.randint(0, self.tokens, (count, *self.shape))
        return torch.randn(count, *self.shape)


def entries() -> dict[str, Entry]:
    """Return all networks by name."""
    found = [_timm(name) for name in TIMM]
    found += [_torchvision(name) for name in TORCHVISION]
    found += [_smp(name) for name in SMP]
    found += [_hugging_face(name) for name in HUGGING_FACE]
    found += [Entry(f"own/{name}", *rest) for name, rest in HANDWRITTEN.items()]
    return {entry.name: entry for entry in found}


def _timm(name: str) -> Entry:
    def build() -> nn.Module:
        import timm

        size = {"img_size": SIDE} if name.startswith(_SIZED) else {}
        return timm.create_model(name, num_classes=10, **size)

    side = LARGE if name.startswith("swin") else SIDE
    return Entry(f"timm/{name}", build, (3, side, side))


def _torchvision(name: str) -> Entry:
    def build() -> nn.Module:
        from torchvision import models

        options: dict[str, Any] = {"weights": None}
        if name == "ssdlite320_backbone":
            whole = models.detection.ssdlite320_mobilenet_v3_large
            return whole(weights=None, weights_backbone=None).backbone
        if name == "fasterrcnn_backbone":
            whole = models.detection.fasterrcnn_mobilenet_v3_large_fpn
            return whole(weights=None, weights_backbone=None).backbone
        if "resnet50" in name or name.startswith(("deeplab", "lraspp")):
            options["weights_backbone"] = None
        return models.get_model(name, num_classes=10, **options)

    if name == "r3d_18":
        return Entry(f"torchvision/{name}", build, (3, 4, 32, 32))
    side = LARGE if name == "vit_b_16" else 2 * SIDE if "backbone" in name else SIDE
    return Entry(f"torchvision/{name}", build, (3, side, side))


def _smp(name: str) -> Entry:
    def build() -> nn.Module:
        import segmentation_models_pytorch as smp

        return getattr(smp, name)("resnet18", encoder_weights=None, classes=4)

    return Entry(f"smp/{name}", build, (3, SIDE, SIDE))


class Keyword(nn.Module):
    """Calls a network of Hugging Face by the name of its input."""

    def __init__(self, net: nn.Module, name: str) -> None:
        super().__init__()
        self.net, self.name = net, name

    def forward(self, x: Tensor) -> Any:
        return self.net(**{self.name: x})


_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
}


def _hugging_face(name: str) -> Entry:
    def build() -> nn.Module:
        import transformers as hf

        text, pixels = "input_ids", "pixel_values"
        made: dict[str, Callable[[], tuple[nn.Module, str]]] = {
            "bert": lambda: (hf.BertForSequenceClassification(hf.BertConfig(**_SMALL)), text),
            "roberta": lambda: (
                hf.RobertaForSequenceClassification(
                    hf.RobertaConfig(**_SMALL, max_position_embeddings=40)
                ),
                text,
            ),
            "distilbert": lambda: (
                hf.DistilBertForSequenceClassification(
                    hf.DistilBertConfig(
                        vocab_size=100, dim=32, n_layers=2, n_heads=4, hidden_dim=64
                    )
                ),
                text,
            ),
            "gpt2": lambda: (
                hf.GPT2LMHeadModel(
                    hf.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, use_cache=False)
                ),
                text,
            ),
            "llama": lambda: (
                hf.LlamaForCausalLM(
                    hf.LlamaConfig(**_SMALL, num_key_value_heads=2, use_cache=False)
                ),
                text,
            ),
            "vit": lambda: (
                hf.ViTForImageClassification(
                    hf.ViTConfig(
                        **{k: v for k, v in _SMALL.items() if k != "vocab_size"},
                        image_size=SIDE,
                        patch_size=16,
                    )
                ),
                pixels,
            ),
            "segformer": lambda: (
                hf.SegformerForSemanticSegmentation(
                    hf.SegformerConfig(
                        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=32
                    )
                ),
                pixels,
            ),
            "resnet": lambda: (
                hf.ResNetForImageClassification(
                    hf.ResNetConfig(
                        embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1]
                    )
                ),
                pixels,
            ),
            "mobilenet_v2": lambda: (
                hf.MobileNetV2ForImageClassification(hf.MobileNetV2Config()),
                pixels,
            ),
            "wav2vec2": lambda: (
                hf.Wav2Vec2ForSequenceClassification(
                    hf.Wav2Vec2Config(
                        **_SMALL, conv_dim=(16, 16), conv_stride=(5, 2), conv_kernel=(10, 3),
                        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
                    )
                ),
                "input_values",
            ),
        }  # fmt: skip
        return Keyword(*made[name]())

    words = name in ("bert", "gpt2", "distilbert", "roberta", "llama")
    shape = (16,) if words else (800,) if name == "wav2vec2" else (3, SIDE, SIDE)
    return Entry(f"hf/{name}", build, shape, 100 if words else 0)
