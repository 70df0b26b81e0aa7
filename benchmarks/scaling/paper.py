"""Arithmetic on paper: what GPUs and cloud machines would do. The two tables are inputs: put in your own."""

from dataclasses import dataclass

GFLOP = {"mobilenet_v2": 0.60, "resnet50": 8.18, "vit_b_16": 35.1}
"""Per 224-pixel crop, two per multiply-add, after torchvision's published counts."""

SHARE = {"mobilenet_v2": 0.05, "resnet50": 0.25, "vit_b_16": 0.40}
"""Assumed share of a GPU's peak that a network reaches: depthwise convolutions wait for memory. Not measured here."""


@dataclass(frozen=True)
class Gpu:
    """Dense fp16 tensor peak after the maker's data sheet."""

    name: str
    tflops: float


GPUS = (Gpu("T4", 65), Gpu("L4", 121), Gpu("A100", 312), Gpu("H100 SXM", 989))


@dataclass(frozen=True)
class Machine:
    """Of a cloud: virtual CPUs, dollars an hour on demand, and a GPU's name if it has one."""

    name: str
    cores: int
    dollars: float
    gpu: str | None = None


PRICED = "2026-11-22"
MACHINES = (
    Machine("2 vCPU, compute", 2, 0.09),
    Machine("4 vCPU, compute", 4, 0.18),
    Machine("8 vCPU, compute", 8, 0.36),
    Machine("16 vCPU, compute", 16, 0.72),
    Machine("4 vCPU + T4", 4, 0.53, "T4"),
    Machine("16 vCPU + T4", 16, 1.20, "T4"),
    Machine("16 vCPU + L4", 16, 1.70, "L4"),
)
"""Round figures of the size that such machines used to cost; nobody looked them up for this page."""


def model_rate(gpu: Gpu, network: str) -> float:
    """Images per second of the model alone."""
    return gpu.tflops * 1e3 * SHARE[network] / GFLOP[network]


def per_million(dollars: float, rate: float) -> float:
    """Dollars for a million images at so many a second."""
    return dollars / (rate * 3600) * 1e6
