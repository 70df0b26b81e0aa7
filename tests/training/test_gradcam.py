import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from inference.errors import RunInvalid
from training.backbones import Normalized
from training.gradcam import heat_maps, target_of
from training.sections import Normalization

TARGETS = {
    "alexnet": "avgpool",
    "convnext_tiny": "features",
    "densenet121": "features",
    "efficientnet_b0": "features",
    "googlenet": "inception5b",
    "mnasnet0_5": "layers",
    "mobilenet_v2": "features",
    "mobilenet_v3_small": "features",
    "resnet18": "layer4",
    "shufflenet_v2_x0_5": "conv5",
    "squeezenet1_1": "classifier.2",
    "swin_t": "permute",
    "vgg11": "avgpool",
}


def network(name: str) -> Normalized:
    torch.manual_seed(0)
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    module = Normalized(models.get_model(name, weights=None, num_classes=3, **options), Normalization())
    return module.requires_grad_(False).eval()


def noise(side: int = 96) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", TARGETS)
def test_the_layer_is_the_last_with_places_in_every_family(name: str) -> None:
    with torch.device("meta"):
        module = network(name)
        assert target_of(module, torch.empty(1, 96, 96, 3, dtype=torch.uint8)).name == TARGETS[name]


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "regnet_y_400mf", "resnet18", "swin_t", "squeezenet1_1"])
def test_heat_lies_in_bounds_and_differs_by_class(name: str) -> None:
    module = network(name)
    if name not in TARGETS:  # it cannot be laid out without memory
        assert target_of(module, torch.from_numpy(noise())[None]).name == "trunk_output"
    first, second = heat_maps(module, [noise(), noise()], [0, 1])
    assert first.shape == (96, 96)
    assert 0 <= first.min() <= first.max() <= 1
    assert not np.allclose(first, second)
    assert not any(layer._forward_hooks for layer in module.modules())


class Corner(nn.Module):
    """Answers class 1 by how bright the upper left quarter is, class 0 by the lower right one."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 2, 8, stride=8, bias=False)
        nn.init.constant_(self.maps.weight, 0.1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maps(images)
        half = maps.shape[2] // 2
        masked = maps.clone()
        masked[:, 1, half:] = masked[:, 1, :, half:] = masked[:, 0, :half] = masked[:, 0, :, :half] = 0
        return self.pooled(masked)

    def pooled(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3))


def test_heat_shows_where_the_evidence_is() -> None:
    bright = np.zeros((32, 32, 3), np.uint8)
    bright[:16, :16] = 255
    module = Normalized(Corner(), Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    (heat,) = heat_maps(module, [bright], [1])
    assert heat[:12, :12].min() > 0.9
    assert heat[20:, 20:].max() < 0.1


def test_vision_transformers_show_their_patches() -> None:
    torch.manual_seed(0)
    vit = models.VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3)
    nn.init.normal_(vit.heads.head.weight)
    module = Normalized(vit, Normalization()).requires_grad_(False)
    target = target_of(module, torch.from_numpy(noise(32))[None])
    assert (target.name, target.tokens) == ("encoder.layers.encoder_layer_1.ln_1", True)
    (heat,) = heat_maps(module, [noise(32)], [0])
    assert heat.shape == (32, 32)
    assert heat.max() > heat.min()


def test_a_network_without_places_is_refused() -> None:
    flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(RunInvalid, match="no layer of the network answers with a map"):
        heat_maps(Normalized(flat, Normalization()), [noise(32)], [0])
