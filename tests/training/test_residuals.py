from itertools import pairwise

import numpy as np
import pytest
import torch
from torchvision import models

from training.backbones import Normalized
from training.residuals import residuals, summands
from training.sections import Normalization

NETWORKS = {  # the additions of each, counted by hand in its paper's table
    "resnet18": 8,
    "resnext50_32x4d": 16,
    "resnet34_projected": 16,
    "mobilenet_v2": 10,
    "mobilenet_v3_small": 6,
    "mnasnet0_5": 10,
    "efficientnet_b0": 9,
    "efficientnet_v2_s": 35,
    "regnet_y_400mf": 16,
    "convnext_tiny": 18,
    "swin_t": 24,
    "swin_v2_t": 24,
}


def network(name: str, **options: int) -> Normalized:
    torch.manual_seed(0)
    return Normalized(models.get_model(name, weights=None, num_classes=3, **options), Normalization()).eval()


def crop(side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_what_is_caught_adds_up_to_what_a_resnets_blocks_answer() -> None:
    module, answers = network("resnet18"), {}
    for name, layer in module.network.named_modules():
        layer.register_forward_hook(lambda _, __, output, name=name: answers.update({name: output.clone()}))
    found = summands(module, torch.from_numpy(crop(64))[None])
    assert [each.block for each in found] == [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    for each in found:
        torch.testing.assert_close((each.branch + each.shortcut).relu(), answers[each.block])
    projected = answers["layer2.0.downsample"]
    torch.testing.assert_close(found[2].shortcut, projected)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_with_shortcuts_adds_up(name: str) -> None:
    module, answers = network(name), {}
    for key, layer in module.network.named_modules():
        layer.register_forward_hook(lambda _, __, output, key=key: answers.update({key: output.clone()}))
    found = summands(module, torch.from_numpy(crop(64))[None])
    assert len(found) == NETWORKS[name]
    for each in found:
        block, _, part = each.block.partition(" ")
        total = each.branch + each.shortcut
        if part != "attention":  # whose sum is the mlp's input, below
            assert torch.allclose(total, answers[block], atol=1e-5) or torch.allclose(total.relu(), answers[block])
    for one, two in pairwise(found):
        if one.block.endswith(" attention"):
            torch.testing.assert_close(one.branch + one.shortcut, two.shortcut)


def test_vision_transformers_add_up() -> None:
    torch.manual_seed(0)
    vit = models.VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3)
    found = summands(Normalized(vit, Normalization()), torch.from_numpy(crop(32))[None])
    assert [each.block.split()[1] for each in found] == ["attention", "mlp"] * 2
    for one, two in pairwise(found):
        torch.testing.assert_close(one.branch + one.shortcut, two.shortcut)


def test_maxvits_add_up() -> None:
    torch.manual_seed(0)
    maxvit = models.MaxVit((32, 32), 8, 2, [8, 16], [1, 1], head_dim=4, stochastic_depth_prob=0.0, num_classes=3)
    module, answers = Normalized(maxvit, Normalization()), {}
    for key, layer in maxvit.named_modules():
        layer.register_forward_hook(lambda _, __, output, key=key: answers.update({key: output.clone()}))
    found = summands(module, torch.from_numpy(crop(32))[None])
    assert len(found) == 2 * 5
    for one, two in pairwise(found):
        if one.block.endswith(" attention"):
            torch.testing.assert_close(one.branch + one.shortcut, two.shortcut)
        elif " " not in one.block:
            torch.testing.assert_close(one.branch + one.shortcut, answers[one.block])


def test_the_report_is_the_norms_of_both_and_their_ratio() -> None:
    module, image = network("resnet18"), crop(64)
    report, found = residuals(module, image), summands(module, torch.from_numpy(image)[None])
    for row, each in zip(report, found, strict=True):
        assert row.shortcut == pytest.approx(float(each.shortcut.norm()), rel=1e-5)
        assert row.branch == pytest.approx(float(each.branch.norm()), rel=1e-5)
        assert row.ratio == pytest.approx(row.branch / row.shortcut)


def test_a_block_that_adds_nothing_has_no_norm() -> None:
    module = network("resnet18")
    torch.nn.init.zeros_(module.network.layer1[0].bn2.weight)
    first = residuals(module, crop(64))[0]
    assert (first.branch, first.ratio) == (0, 0)
    assert first.shortcut > 0


def test_networks_without_additions_have_no_rows_and_keep_no_hooks() -> None:
    assert residuals(network("squeezenet1_1"), crop(64)) == []
    module = network("mobilenet_v2")
    residuals(module, crop(64))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules())
