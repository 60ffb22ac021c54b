"""LightningModules that train torchvision's AlexNet, MobileNetV2 and ShuffleNetV2."""

from lit_compress.modules.alexnet import AlexNet
from lit_compress.modules.classifier import ImageClassifier
from lit_compress.modules.mobilenet_v2 import MobileNetV2
from lit_compress.modules.shufflenet_v2 import ShuffleNetV2

__all__ = ["AlexNet", "ImageClassifier", "MobileNetV2", "ShuffleNetV2"]
