"""What residual blocks add: ‖F(x)‖ against ‖x‖ for every addition of a network, on one photo.

A block with a shortcut answers x + F(x), or P(x) + F(x) where a projection P brings x to F(x)'s shape (He et al. 2015,
equations 1 and 2). Both summands are caught by hooks just before they are added, in the network as it is:

    entry      the layer that takes x         projection  the layer that answers P(x), where the block has one
    branch     the layer that answers F(x)

Networks that concatenate (DenseNet, GoogLeNet, ShuffleNet) or only stack (VGG, AlexNet) add nothing, and have no rows.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchvision.models import convnext, efficientnet, maxvit, mnasnet, mobilenetv2, mobilenetv3, regnet, resnet
from torchvision.models import swin_transformer as swin
from torchvision.models import vision_transformer as vit

from training.backbones import Normalized
from training.pixels import Pixels


@dataclass(frozen=True)
class Addition:
    """Where a kind of block adds: names of its layers; `part` tells apart the additions of one block."""

    entry: str
    branch: str
    projection: str | None = None
    part: str = ""


_ADDITIONS: dict[type[nn.Module], tuple[Addition, ...]] = {
    resnet.BasicBlock: (Addition("conv1", "bn2", "downsample"),),
    resnet.Bottleneck: (Addition("conv1", "bn3", "downsample"),),
    mobilenetv2.InvertedResidual: (Addition("conv", "conv"),),
    mobilenetv3.InvertedResidual: (Addition("block", "block"),),
    mnasnet._InvertedResidual: (Addition("layers", "layers"),),
    efficientnet.MBConv: (Addition("block", "stochastic_depth"),),
    efficientnet.FusedMBConv: (Addition("block", "stochastic_depth"),),
    regnet.ResBottleneckBlock: (Addition("f", "f", "proj"),),
    convnext.CNBlock: (Addition("block", "stochastic_depth"),),
    maxvit.MBConv: (Addition("layers", "layers", "proj"),),
    maxvit.PartitionAttentionLayer: (
        Addition("attn_layer", "stochastic_dropout", part="attention"),
        Addition("mlp_layer", "stochastic_dropout", part="mlp"),
    ),
    swin.SwinTransformerBlock: (
        Addition("norm1", "stochastic_depth", part="attention"),
        Addition("norm2", "stochastic_depth", part="mlp"),
    ),
    swin.SwinTransformerBlockV2: (
        Addition("attn", "stochastic_depth", part="attention"),
        Addition("mlp", "stochastic_depth", part="mlp"),
    ),
    vit.EncoderBlock: (Addition("ln_1", "dropout", part="attention"), Addition("ln_2", "mlp", part="mlp")),
}


@dataclass(frozen=True)
class Summands:
    """What one addition adds, float32 (batch, …), both of one shape."""

    block: str
    shortcut: Tensor
    branch: Tensor


@dataclass(frozen=True)
class Residual:
    """One addition's Euclidean norms over all values: of x (or P(x)), of F(x), and the second by the first."""

    block: str
    shortcut: float
    branch: float
    ratio: float


def residuals(module: Normalized, crop: Pixels) -> list[Residual]:
    """The report for one crop, uint8 (side, side, 3), in the order in which the network adds; empty without blocks."""
    device = module.scale.device
    found = summands(module, torch.from_numpy(crop[None].copy()).to(device))
    rows = []
    for each in found:
        shortcut, branch = (float(torch.linalg.vector_norm(part)) for part in (each.shortcut, each.branch))
        rows.append(Residual(each.block, shortcut, branch, branch / shortcut if shortcut else 0.0))
    return rows


@torch.inference_mode()
def summands(module: Normalized, images: Tensor) -> list[Summands]:
    """What every addition adds while `images` run through the module; the module is left in evaluation mode."""
    catches = [
        _Catch(name, block, additions)
        for name, block in module.network.named_modules()
        if (additions := _additions(block))
    ]
    try:
        module.eval()(images)
    finally:
        for catch in catches:
            catch.release()
    return [found for catch in catches for found in catch.summands()]


def as_rows(report: Sequence[Residual]) -> list[dict[str, object]]:
    """The report as data for JSON and CSV, rounded to what means something."""
    return [
        {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in asdict(each).items()}
        for each in report
    ]


def _additions(block: nn.Module) -> tuple[Addition, ...]:
    """Where a block adds; nothing for other layers and for blocks whose shapes forbid a shortcut."""
    shortcut = getattr(block, "use_res_connect", getattr(block, "apply_residual", True))
    return _ADDITIONS.get(type(block), ()) if shortcut else ()


class _Catch:
    """Hooks on one block. Copies are kept: torchvision's blocks add in place."""

    def __init__(self, name: str, block: nn.Module, additions: tuple[Addition, ...]) -> None:
        self._name, self._parts, self._now = name, [each.part for each in additions], ""
        self._shortcuts: dict[str, Tensor] = {}
        self._branches: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []
        for each in additions:
            self._hook_entry(block.get_submodule(each.entry), each.part)
            projection = getattr(block, each.projection, None) if each.projection else None
            if projection is not None:
                self._hook_projection(projection, each.part)
        # Two additions may share a branch's last layer, which is then called once for each.
        for branch in {each.branch for each in additions}:
            self._hooks.append(block.get_submodule(branch).register_forward_hook(self._leave))

    def _hook_entry(self, layer: nn.Module, part: str) -> None:
        def enter(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._now = part
            self._shortcuts.setdefault(part, inputs[0].float().clone())  # a projection may have come first

        self._hooks.append(layer.register_forward_pre_hook(enter))

    def _hook_projection(self, layer: nn.Module, part: str) -> None:
        def project(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            self._shortcuts[part] = output.float().clone()

        self._hooks.append(layer.register_forward_hook(project))

    def _leave(self, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        self._branches[self._now] = output.float().clone()

    def release(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()

    def summands(self) -> list[Summands]:
        """What was caught, in order."""
        return [
            Summands(f"{self._name} {part}".strip(), self._shortcuts[part], self._branches[part])
            for part in self._parts
        ]
