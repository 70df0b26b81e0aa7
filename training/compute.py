"""Where and in which precision a run computes."""

import logging
import os
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from inference import memory, torchrun
from inference.budget import whole_cores
from inference.errors import DeviceUnavailable, RecipeInvalid
from training.processes import Processes
from training.recipe import Recipe

_TIMEOUT = timedelta(hours=2)
"""What one process may do alone while the others wait, such as decoding; a process that dies is noticed at once."""


@dataclass(frozen=True)
class Compute:
    """A Fabric, which holds the device, and the type that matrix products run in; float32 means no autocast."""

    fabric: Fabric
    dtype: torch.dtype
    processes: Processes

    @classmethod
    def plan(cls, device: str, recipe: Recipe) -> "Compute":
        """`device` is auto, cpu or cuda; auto takes a GPU where torch sees one. Sets PyTorch's threads to the budget,
        and on a CPU has the process keep the memory that a step has freed.

        Raises DeviceUnavailable when cuda is demanded and absent, RecipeInvalid for fp16 on a CPU.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise DeviceUnavailable(f"no device is called {device!r}; choose auto, cpu or cuda")
        has_cuda = torch.cuda.is_available()
        if device == "cuda" and not has_cuda:
            raise DeviceUnavailable("torch sees no CUDA device; check the driver with nvidia-smi, or train with cpu")
        # PyTorch counts the host's cores; a container's share of them may be smaller.
        torch.set_num_threads(max(1, whole_cores() // torchrun.local_processes()))
        kind: Literal["cpu", "cuda"] = "cuda" if has_cuda and device != "cpu" else "cpu"
        if kind == "cpu":
            memory.keep()
        if recipe.precision == "fp16" and kind == "cpu":
            raise RecipeInvalid("precision: fp16 trains on CUDA only; choose auto, bf16 or fp32 for a CPU")
        dtype = _dtype(recipe.precision, kind)
        return cls(fabric := _joined(kind, dtype), dtype, Processes.of(fabric))

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.fabric.device

    def __str__(self) -> str:
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else platform.processor() or "CPU"
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        several = f"{self.processes.count} processes, " if self.processes.count > 1 else ""
        return f"{several}{self.device.type} ({name}{threads}), {str(self.dtype).removeprefix('torch.')}"

    def setup(self, part: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Both, wrapped for `fabric.backward` and one stage: the module computes in the run's precision."""
        network, wrapped = self.fabric.setup(part, optimizer, move_to_device=False)
        return network, wrapped

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision for the block, where the run has it."""
        return self.fabric.autocast()

    @property
    def precision(self) -> Precision:
        """Its state, the scale of float16 losses, belongs into a checkpoint; other types have none."""
        return self.fabric.strategy.precision


def make_repeatable(compute: Compute) -> None:
    """Choose algorithms that give equal results run after run, where there is a choice."""
    if compute.device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True


def _joined(kind: Literal["cpu", "cuda"], dtype: torch.dtype) -> Fabric:
    """A Fabric for one device, or one that has joined the processes of torchrun, each with a device of its own."""
    # What it tells, the number of processes and the precision, stands in the line that announces a stage.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    local, processes = torchrun.local_processes(), torchrun.processes()
    if kind == "cuda" and local > torch.cuda.device_count():
        raise DeviceUnavailable(
            f"{local} processes share {torch.cuda.device_count()} GPUs; start at most one process for each"
        )
    fabric = Fabric(
        accelerator=kind,
        devices=local,
        num_nodes=processes // local,
        strategy=DDPStrategy(timeout=_TIMEOUT) if processes > 1 else "auto",
        plugins=_precision(dtype, kind),
    )
    fabric.launch()
    return fabric


class _Mixed(MixedPrecision):
    """Autocast alone: mixed pictures in 0…255 would lose levels if they were rounded before they are normalised."""

    def convert_input(self, data: Any) -> Any:
        """The data as they are."""
        return data


def _precision(dtype: torch.dtype, kind: str) -> Precision:
    if dtype == torch.float32:
        return Precision()
    return _Mixed("16-mixed" if dtype == torch.float16 else "bf16-mixed", kind)


def _dtype(precision: str, kind: str) -> torch.dtype:
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    # With AVX-512's bf16 products alone, ResNets and small crops train slower (benchmarks/results/training_loop.md).
    return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16") else torch.float32
