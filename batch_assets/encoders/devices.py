"""What this machine computes with: its device, its cores, and the precision it is fast in."""

import functools
import os
from pathlib import Path

from batch_assets.encoders.control_groups import cpu_quota
from batch_assets.errors import ModelError
from batch_assets.module_loading import load_modules

_BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")
MOST_THREADS = 8
"""Above so many model threads Python itself, one thread at a time, is what they wait for."""


def pick_device(asked: str) -> str:
    """`auto` is the first CUDA device where there is one, else the CPU. Raises ModelError for a missing one."""
    load_modules("torch")
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda"):
        number = int(asked.partition(":")[2] or 0)
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if number >= found:
            raise ModelError(
                f"executor.device: {asked!r} cannot be used: torch {torch.__version__} sees {found} "
                "CUDA devices; use auto or cpu, or install a torch built for this machine's driver"
            )
    return asked


def physical_device(device: str) -> str:
    """The card that `cuda:N` means here, by a name that it has for other processes too.

    Each may be shown some of the cards, in CUDA_VISIBLE_DEVICES: by their numbers, or their ids (GPU-…, MIG-…).
    """
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    number = int(device.partition(":")[2] or 0)
    card = shown[number].strip() if number < len(shown) else ""
    return f"cuda:{int(card) if card.isdigit() else card or number}"


def pick_dtype(asked: str, device: str) -> str:
    """`auto` is bfloat16 where the processor computes it, float32 elsewhere."""
    import torch

    if asked != "auto":
        return asked
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    return "bfloat16" if _cpu_computes_bfloat16() else "float32"


def split_cores(cores: int) -> tuple[int, int]:
    """Model threads, and cores for each: small products side by side beat one split over all cores."""
    threads = min(cores, MOST_THREADS)
    return threads, max(1, cores // threads)


@functools.cache
def available_cores() -> int:
    """Cores this process may use: its affinity, and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def processor_peak(dtype: str) -> float:
    """Floating-point operations per second that this machine's cores could do, by their flags and clock.

    Operations a cycle and core, a fused multiply-add counted as two: 16 for any, 32 with AVX2, 64
    with AVX-512; twice that in bfloat16 with avx512_bf16, 2,048 with AMX. Known without torch.
    """
    text = _processor()
    cycle = 64 if " avx512f" in text else 32 if " avx2" in text else 16
    if dtype != "float32" and _cpu_computes_bfloat16():
        cycle = 2_048 if " amx_bf16" in text else 2 * cycle
    clocks = [float(line.partition(":")[2]) for line in text.splitlines() if line.startswith("cpu MHz")]
    return available_cores() * max(clocks, default=2_500.0) * 1e6 * cycle


def _cpu_computes_bfloat16() -> bool:
    return any(f" {flag}" in _processor() for flag in _BFLOAT16_FLAGS)


@functools.cache
def _processor() -> str:
    """What Linux says of the processor; empty elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
