"""Where a run computes and in which precision: any device that PyTorch knows, one flag apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from speculation.errors import ConfigurationError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Place:
    """A device, the precision of its matrix products, and whether the forward is compiled."""

    device: torch.device
    precision: torch.dtype
    is_compiled: bool

    @classmethod
    def at(cls, device: str, precision: str | None = None, is_compiled: bool = False, threads: int = 1, seed: int = 0) -> Place:
        """A device by PyTorch's name for it, in its fastest precision by default; sets the process's thread count and seed.

        Raises ``ConfigurationError`` for a device that is not there.
        """
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            found = torch.device(device)
            torch.zeros(1, device=found)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigurationError(f"--device {device}: {reason}; cpu is always there") from error
        return cls(found, PRECISIONS[precision or _fastest(found)], is_compiled)

    def autocast(self) -> torch.autocast:
        """The context in which matrix products are computed in this precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16)

    def forward(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """The model's logits in float32, computed in this precision."""
        inner = self.compiled(model)

        def logits(token_ids: Tensor) -> Tensor:
            with self.autocast():
                out: Tensor = inner(token_ids)
            return out.float()

        return logits

    def uncompiled(self) -> Place:
        """The same place for what runs seldom, or with rows of many shapes."""
        return replace(self, is_compiled=False)

    def compiled(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The same function, compiled where the run asked for that."""
        return torch.compile(function, dynamic=False) if self.is_compiled else function


def _fastest(device: torch.device) -> str:
    """bf16 where the hardware multiplies it; elsewhere it would be emulated, and slower than fp32."""
    if device.type == "cpu":
        able = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
    else:
        able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bf16" if able else "fp32"
