import pytest
import torch
from torchvision import models

from training import blocks
from training.backbones import backbone_names, bare_network
from training.blocks import depths


@pytest.mark.parametrize(
    ("name", "count", "near"),
    [
        ("resnet18", 10, {"fc.weight": 0, "layer4.1.bn2.weight": 1, "bn1.weight": 9, "conv1.weight": 9}),
        ("mobilenet_v2", 20, {"classifier.1.bias": 0, "features.18.0.weight": 1, "features.0.0.weight": 19}),
        ("vgg16", 16, {"classifier.6.weight": 0, "classifier.0.weight": 2, "features.28.weight": 3}),
        ("densenet121", 9, {"features.norm5.weight": 1, "features.denseblock4.denselayer1.conv1.weight": 1}),
        ("convnext_tiny", 23, {"classifier.0.weight": 1, "features.7.2.block.0.weight": 1}),
    ],
)
def test_blocks_are_counted_from_the_head(name: str, count: int, near: dict[str, int]) -> None:
    with torch.device("meta"):
        network = models.get_model(name, weights=None, num_classes=3)
    found = depths(network, name)
    assert set(found.values()) == set(range(count))
    assert near.items() <= found.items()


def test_every_parameter_of_every_backbone_has_its_place() -> None:
    # Not each: laying out all of them takes a minute.
    for name in backbone_names()[::7]:
        network = bare_network(name)
        found = depths(network, name)
        assert list(found) == [key for key, _ in network.named_parameters()]
        assert set(found.values()) == set(range(max(found.values()) + 1))
        assert len(set(found.values())) > 4


def test_a_transformer_ends_in_its_encoders_last_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "head_layers", lambda _: ("heads.head",))
    monkeypatch.setattr(blocks, "is_head", lambda name, _: name.startswith("heads.head."))
    network = models.VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=2)
    found = depths(network, "vit")
    assert found["encoder.ln.weight"] == found["encoder.layers.encoder_layer_2.ln_1.weight"] == 1
    assert found["class_token"] == found["encoder.pos_embedding"] == found["conv_proj.weight"] == 4
