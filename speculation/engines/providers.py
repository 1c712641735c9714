"""Where a model is computed: on the CPU, or on a GPU by CUDA, and what a runtime says to that."""

from __future__ import annotations

import enum

from speculation.errors import ConfigurationError


class Provider(enum.StrEnum):
    """What runs a model; the value is the setting ``provider``."""

    CPU = "cpu"
    CUDA = "cuda"


EXECUTION_PROVIDERS = {Provider.CPU: "CPUExecutionProvider", Provider.CUDA: "CUDAExecutionProvider"}
"""What ONNX Runtime calls them."""


def execution_provider(provider: Provider) -> str:
    """The name that ONNX Runtime has for a provider. Raises ``ConfigurationError`` where this build of it has no such."""
    import onnxruntime

    name, there = EXECUTION_PROVIDERS[provider], onnxruntime.get_available_providers()
    if name not in there:
        package = "the package onnxruntime-gpu, in place of onnxruntime, has it"
        raise ConfigurationError(f"provider {provider}: this ONNX Runtime has {', '.join(there)}, but not {name}; {package}")
    return name
