"""The Llama architecture in PyTorch, as small as it can be, for training only.

Weights are named as Hugging Face's ``LlamaForCausalLM`` names them, so that ``model.safetensors`` loads elsewhere as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder, named as in ``config.json``."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int = 4096
    max_position_embeddings: int = 512
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def to_config(self, end_token_id: int) -> dict[str, object]:
        """``config.json`` of a Hugging Face ``LlamaForCausalLM``."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "torch_dtype": "float16",
            "bos_token_id": end_token_id,
            "eos_token_id": end_token_id,
            "head_dim": self.head_dim,
            **asdict(self),
        }


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in the half-split form (Su et al., arXiv 2104.09864); x: [batch, heads, rows, head size]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


@dataclass(slots=True)
class Past:
    """Keys and values of earlier rows: [batch, key-value heads, capacity, head size] each, ``length`` rows of them filled."""

    keys: Tensor
    values: Tensor
    length: int = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values up to and with these new rows."""
        start, self.length = self.length, self.length + keys.shape[2]
        self.keys[:, :, start : self.length], self.values[:, :, start : self.length] = keys, values
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, self.heads * self.size, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, self.kv_heads * self.size, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, self.kv_heads * self.size, bias=False)
        self.o_proj = nn.Linear(self.heads * self.size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: Past | None = None) -> Tensor:
        """With ``past`` (grown in place) the rows of x go on behind it: all at once where it is empty, else one at a time."""
        batch, rows, _ = x.shape
        q = rotate(self.q_proj(x).view(batch, rows, self.heads, self.size).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(x).view(batch, rows, self.kv_heads, self.size).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(batch, rows, self.kv_heads, self.size).transpose(1, 2)
        if past is not None:
            k, v = past.append(k, v)
        out: Tensor = F.scaled_dot_product_attention(q, k, v, is_causal=rows > 1, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, rows, -1))


class FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: Past | None = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, past)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """``LlamaForCausalLM`` with tied embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(shape.vocab_size, shape.hidden_size),
                "layers": nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers)),
                "norm": RMSNorm(shape.hidden_size, shape.rms_norm_eps),
            }
        )
        angles = torch.outer(
            torch.arange(shape.max_position_embeddings, dtype=torch.float64),
            shape.rope_theta ** -(torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim),
        )
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, Attention):
            nn.init.zeros_(module.o_proj.weight)
        if isinstance(module, FeedForward):
            nn.init.zeros_(module.down_proj.weight)

    def hidden(self, token_ids: Tensor, past: Sequence[Past] | None = None) -> Tensor:
        """Last hidden states [batch, rows, hidden] of token ids [batch, rows] behind what ``past`` holds, one a layer."""
        start = past[0].length if past else 0
        end = start + token_ids.shape[1]
        cos, sin = self.cos[start:end], self.sin[start:end]
        x = self.model["embed_tokens"](token_ids)
        for number, layer in enumerate(self.model["layers"]):
            x = layer(x, cos, sin, None if past is None else past[number])
        return self.model["norm"](x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocabulary] of last hidden states [..., hidden]."""
        return F.linear(hidden, self.model["embed_tokens"].weight)

    def no_past(self, batch: int, capacity: int, dtype: torch.dtype = torch.float32) -> list[Past]:
        """Room for the keys and values of ``capacity`` rows, one a layer."""
        shape = self.shape
        size = (batch, shape.num_key_value_heads, capacity, shape.head_dim)
        empty = partial(torch.empty, size, dtype=dtype, device=self.cos.device)
        return [Past(empty(), empty()) for _ in self.model["layers"]]

    def last_logits(self, token_ids: Tensor, past: list[Past]) -> Tensor:
        """Logits [batch, vocabulary] behind the last of these tokens."""
        return self.logits(self.hidden(token_ids, past)[:, -1])

    def forward(self, token_ids: Tensor) -> Tensor:
        """Logits [batch, rows, vocabulary]."""
        return self.logits(self.hidden(token_ids))

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())
