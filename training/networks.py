"""Networks of our own beside torchvision's, found by `models.get_model` like the others.

Their layers keep the names of the network that they derive from, so its published weights fill them as they are.
"""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torchvision import models
from torchvision.models._api import register_model

SOURCES = {"partial_vgg16": "vgg16", "resnet34_projected": "resnet34"}
"""Our networks, each with the torchvision network whose weights fill it."""


class PartialVGG16(nn.Module):
    """Three convolutions of VGG16 between two new ones, for greyscale pictures of 224 pixels.

    float32 (batch, 1, 224, 224) → float32 (batch, classes). `features.0`, `.2` and `.28` are VGG16's. Each of the five
    convolutions keeps its map's size and is followed by ReLU and AlexNet's overlapping max pooling, 3 × 3 with stride
    2, which leads to 6 × 6 without a border lost or an adaptive pooling: 224 → 111 → 55 → 27 → 13 → 6. For two
    classes 42,544,992 parameters, 40,146,464 of them outside VGG16's layers.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        widths = {"grey": (1, 3), "0": (3, 64), "2": (64, 64), "widen": (64, 512), "28": (512, 512)}
        layers = OrderedDict[str, nn.Module]()
        for name, channels in widths.items():
            layers[name] = nn.Conv2d(*channels, kernel_size=3, padding=1)
            layers[f"{name}_relu"] = nn.ReLU(inplace=True)
            layers[f"{name}_pool"] = nn.MaxPool2d(kernel_size=3, stride=2)
        self.features = nn.Sequential(layers)
        # Not `classifier`: VGG16 has layers of that name, of other shapes.
        self.top = nn.Sequential(
            nn.Flatten(),
            nn.Linear(512 * 6 * 6, 2048),
            nn.ReLU(inplace=True),
            nn.Linear(2048, 1024),
            nn.ReLU(inplace=True),
            nn.Linear(1024, num_classes),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits, float32 (batch, classes)."""
        logits: Tensor = self.top(self.features(pixels))
        return logits


def partial_vgg16(*, weights: None = None, progress: bool = True, **options: Any) -> PartialVGG16:
    """The network as torchvision builds its own; weights are filled in later, by training/weights.py."""
    del weights, progress
    return PartialVGG16(**options)


def resnet34_projected(*, weights: None = None, progress: bool = True, **options: Any) -> nn.Module:
    """ResNet-34 with a projection (1 × 1 convolution, batch norm) at the start of every stage.

    torchvision's has none at the start of the first, where the shapes agree without.
    """
    network: nn.Module = models.resnet34(weights=weights, progress=progress, **options)
    first = network.get_submodule("layer1.0")
    projection = nn.Conv2d(64, 64, kernel_size=1, bias=False)
    nn.init.kaiming_normal_(projection.weight, mode="fan_out", nonlinearity="relu")
    first.downsample = nn.Sequential(projection, nn.BatchNorm2d(64))
    return network


for _builder in (partial_vgg16, resnet34_projected):
    register_model()(_builder)
