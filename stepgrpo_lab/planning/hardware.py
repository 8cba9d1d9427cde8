"""The GPUs that the recipes are written for."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30
GB = 10**9


@dataclass(frozen=True)
class Gpu:
    """What one GPU offers.

    Attributes:
        name: As ``--gpu`` names it.
        memory: What PyTorch reports as its total capacity, in bytes: less than the number on the box.
        capability: CUDA compute capability (major, minor).
        bandwidth: Of its own memory, in bytes per second.
        compute: Dense 16-bit matrix operations per second.
        link: To the other GPUs of its node, in bytes per second and direction.
    """

    name: str
    memory: int
    capability: tuple[int, int]
    bandwidth: float
    compute: float
    link: float


def _gpu(
    name: str, gib: float, capability: tuple[int, int], bandwidth_gb: float, tera_flops: float, link_gb: float
) -> Gpu:
    return Gpu(name, int(gib * GIB), capability, bandwidth_gb * GB, tera_flops * 1e12, link_gb * GB)


GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _gpu("T4", 14.56, (7, 5), 320, 65, 16),
        _gpu("L4", 22.03, (8, 9), 300, 121, 32),
        _gpu("A100", 79.15, (8, 0), 2039, 312, 300),
        _gpu("H100", 79.10, (9, 0), 3350, 989, 450),
        _gpu("H200", 139.80, (9, 0), 4800, 989, 450),
    )
}
"""T4 (16 GB), L4 (24 GB), A100 (SXM, 80 GB), H100 (SXM, 80 GB) and H200 (SXM, 141 GB).

Capacity: the totals in PyTorch's own out-of-memory messages, the smallest where drivers differ. Bandwidth, dense 16-bit
rate and link: NVIDIA's data sheets. The T4 and the L4 are linked by PCIe 3.0 and 4.0, 16 lanes; the others by NVLink.
"""

NETWORK = 50 * GB
"""Between nodes, in bytes per second for each GPU: one 400 Gb/s adapter for each, as in NVIDIA's DGX H100."""


def find_gpu(name: str) -> Gpu:
    """The GPU of a name.

    Raises:
        ValueError: No such GPU in the table.

    Example:
        >>> find_gpu("T4").capability
        (7, 5)
    """
    if name not in GPUS:
        raise ValueError(f"unknown GPU {name!r}: choose from {', '.join(GPUS)}")
    return GPUS[name]
