"""Where and in which precision a run computes."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from inference.budget import whole_cores
from inference.errors import DeviceUnavailable, RecipeInvalid
from training.recipe import Recipe


@dataclass(frozen=True)
class Compute:
    """A device and the type that matrix products run in; float32 means no autocast."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def plan(cls, device: str, recipe: Recipe) -> "Compute":
        """`device` is auto, cpu or cuda; auto takes a GPU where torch sees one. Sets PyTorch's threads to the budget.

        Raises DeviceUnavailable when cuda is demanded and absent, RecipeInvalid for fp16 on a CPU.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise DeviceUnavailable(f"no device is called {device!r}; choose auto, cpu or cuda")
        has_cuda = torch.cuda.is_available()
        if device == "cuda" and not has_cuda:
            raise DeviceUnavailable("torch sees no CUDA device; check the driver with nvidia-smi, or train with cpu")
        # PyTorch counts the host's cores; a container's share of them may be smaller.
        torch.set_num_threads(whole_cores())
        chosen = torch.device("cuda" if has_cuda and device != "cpu" else "cpu")
        if recipe.precision == "fp16" and chosen.type == "cpu":
            raise RecipeInvalid("precision: fp16 trains on CUDA only; choose auto, bf16 or fp32 for a CPU")
        return cls(chosen, _dtype(recipe.precision, chosen))

    def __str__(self) -> str:
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else platform.processor() or "CPU"
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{self.device.type} ({name}{threads}), {str(self.dtype).removeprefix('torch.')}"

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Mixed precision for the block, where the run has it."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            yield

    def scaler(self) -> torch.amp.GradScaler:
        """Scales losses so that float16 gradients do not vanish; does nothing for other types."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)


def make_repeatable(compute: Compute) -> None:
    """Choose algorithms that give equal results run after run, where there is a choice."""
    if compute.device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    # AVX-512's bf16 products alone, without AMX's tiles, train slower than fp32 (benchmarks/results/training_loop.md).
    return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16") else torch.float32
