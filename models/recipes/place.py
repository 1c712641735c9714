"""Where a run computes and in which precision: any device that PyTorch knows, one flag apart."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Place:
    """A device, the precision of its matrix products, and whether the forward is compiled."""

    device: torch.device
    precision: torch.dtype
    is_compiled: bool

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Place:
        """From the flags; sets the process's thread count and seed.

        Raises:
            SystemExit: the device is not there.
        """
        torch.manual_seed(arguments.seed)
        torch.set_num_threads(arguments.threads)
        device = torch.device(arguments.device)
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise SystemExit(f"--device {arguments.device}: {error}") from error
        return cls(device, PRECISIONS[arguments.precision or _fastest(device)], arguments.compile)

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


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), help="of matrix products (default: the device's fastest)")
    parser.add_argument("--compile", action="store_true", help="compile the forward; wants a C++ compiler on a CPU")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
