"""Device, precision and threads of the computation, and the state of every random generator."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from cxr.common.hardware import cores
from cxr.errors import CxrError
from cxr.models import memory


@dataclass(frozen=True)
class Device:
    """Where the network runs and in which precision; weights stay float32.

    Attributes:
        device: CPU, CUDA or MPS.
        dtype: of the forward passes.
    """

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> torch.autocast:
        """A context in which forward passes compute in `dtype`."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return f"{name}, {str(self.dtype).removeprefix('torch.')}"


def pick(device: str = "auto", precision: str = "auto") -> Device:
    """Choose device (`auto|cpu|cuda|mps`) and precision (`auto|float32|bfloat16`).

    Raises:
        CxrError: this machine does not have the device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, present in available.items() if present)
    elif not available.get(device, False):
        present = ", ".join(name for name, yes in available.items() if yes)
        raise CxrError(f"device {device!r} is not available; this machine has: {present}; device=auto takes the best")
    if precision == "auto":
        precision = "bfloat16" if _computes_in_bfloat16(device) else "float32"
    return Device(torch.device(device), getattr(torch, precision))


def prepare(seed: int, deterministic: bool) -> None:
    """Seed Python, numpy and torch, limit threads to the cores, select deterministic algorithms, and keep memory."""
    memory.keep_freed()
    torch.set_num_threads(cores())
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if deterministic:
        # cuBLAS is deterministic only with a workspace of fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    # Every new tensor would be filled before it is written, to expose code that reads too early: that takes a tenth of
    # the time of a step of EfficientNet-Lite0 on two cores, and no result depends on it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
    # float32 means float32: with TF32, which cuDNN takes by default, a GPU keeps 10 of 23 bits of every factor.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def widest_float(device: torch.device) -> torch.dtype:
    """The most precise type that a device computes in: `float64`, which Apple's GPUs lack."""
    return torch.float32 if device.type == "mps" else torch.float64


@contextmanager
def explaining_nondeterminism() -> Iterator[None]:
    """Turn the error of an operation that has no deterministic implementation on the device into one line."""
    try:
        yield
    except RuntimeError as error:
        operation, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise CxrError(
            f"{operation}{found} on this device; set deterministic=false, or choose another architecture or device"
        ) from None


def random_states() -> dict:
    """The state of every random generator, in types that load with `weights_only`."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    states = {
        "python": [version, list(internal), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: dict) -> None:
    """Put every random generator into a state of `random_states`."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])


def _computes_in_bfloat16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and torch.cpu._is_avx512_bf16_supported()
