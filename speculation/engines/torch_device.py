"""Where PyTorch computes, and in which type of numbers."""

from __future__ import annotations

from typing import Any

from speculation.engines.checkpoint import Checkpoint
from speculation.engines.providers import Provider
from speculation.errors import ConfigurationError

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def device_of(torch: Any, provider: Provider) -> str:
    """The device's name. Raises ``ConfigurationError`` where this PyTorch has none."""
    if provider is Provider.CUDA and not torch.cuda.is_available():
        right = "install a build of torch for CUDA, on a machine with a GPU and its driver"
        raise ConfigurationError(f"provider {provider}: this PyTorch ({torch.__version__}) finds no CUDA device; {right}")
    return provider.value


def dtype_of(torch: Any, checkpoint: Checkpoint, provider: Provider) -> Any:
    """On the CPU float32; elsewhere that of the largest weight."""
    largest = max(checkpoint, key=lambda name: checkpoint.sizes[name])
    return torch.float32 if provider is Provider.CPU else getattr(torch, DTYPES[checkpoint.tensor(largest).dtype])
