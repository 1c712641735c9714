"""Plain decoding, written apart from the product: its own forward in numpy, one token at a time, and its own choice.

Shares nothing with the engines or the choice but the weights file and the published rules (docs/choice-rule.md).
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


class PlainLlama:
    """Batch 1, float32, a growing cache."""

    def __init__(self, package: Path) -> None:
        self.c = json.loads((package / "config.json").read_text())
        self.w = {k: v.astype(np.float32) for k, v in load_file(package / "model.safetensors").items()}

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean() + self.c["rms_norm_eps"]) * self.w[name + ".weight"]

    def logits(self, token, position, cache):
        c, w, d = self.c, self.w, self.c["hidden_size"] // self.c["num_attention_heads"]
        angle = position / c["rope_theta"] ** (np.arange(0, d, 2) / d)
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)

        def rotated(heads):
            a, b = heads[:, : d // 2], heads[:, d // 2 :]
            return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=1)

        x = w["model.embed_tokens.weight"][token]
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            h = self.norm(x, p + "input_layernorm")
            q, k, v = ((w[p + f"self_attn.{n}_proj.weight"] @ h).reshape(-1, d) for n in "qkv")
            before = cache.get(i, np.zeros((2, len(k), 0, d), np.float32))
            keys, values = cache[i] = np.concatenate((before, np.stack((rotated(k), v))[:, :, None]), axis=2)
            q = rotated(q).reshape(len(keys), -1, d)
            scores = q @ keys.transpose(0, 2, 1) / np.sqrt(np.float32(d))
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            x = x + w[p + "self_attn.o_proj.weight"] @ (weights / weights.sum(-1, keepdims=True) @ values).ravel()
            h = self.norm(x, p + "post_attention_layernorm")
            gate = w[p + "mlp.gate_proj.weight"] @ h
            x = x + w[p + "mlp.down_proj.weight"] @ (gate / (1 + np.exp(-gate)) * (w[p + "mlp.up_proj.weight"] @ h))
        return w.get("lm_head.weight", w["model.embed_tokens.weight"]) @ self.norm(x, "model.norm")


def gumbel(seed, position, size):
    """Noise of every token at a position: Philox4x32-10 over all counters at once, in plain uint64 arithmetic."""
    m = np.uint64(0xFFFFFFFF)
    n = -(-size // 4)
    words = [np.arange(n, dtype=np.uint64), *(np.full(n, x, np.uint64) for x in (position & 0xFFFFFFFF, position >> 32, 1))]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p, q = words[0] * np.uint64(0xD2511F53), words[2] * np.uint64(0xCD9E8D57)
        words = [(q >> np.uint64(32)) ^ words[1] ^ np.uint64(k0), q & m, (p >> np.uint64(32)) ^ words[3] ^ np.uint64(k1), p & m]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return -np.log(-np.log((np.stack(words, 1).ravel()[:size] + 0.5) / 2**32))


def plain_choice(logits, position, temperature=0.0, top_k=0, top_p=1.0, seed=0):
    """The token of the choice rule, by a full sort."""
    if temperature == 0:
        return int(np.argmax(logits))
    scores = logits.astype(np.float64) / temperature
    order = np.lexsort((np.arange(len(scores)), -scores))
    order = order[:top_k] if top_k else order
    reached = np.cumsum(np.rint(np.exp(scores[order] - scores[order[0]]) * 2**32))
    left = np.sort(order[: 1 + np.searchsorted(reached, top_p * reached[-1])] if top_p < 1 else order)
    return int(left[np.argmax((scores + gumbel(seed, position, len(scores)))[left])])


def plain_text(package, prompt, num_tokens, end_token_ids, **parameters):
    """Prompt and continuation, decoded by the full model alone."""
    model, cache, tokens = PlainLlama(package), {}, list(prompt)
    for position, token in enumerate(prompt[:-1]):
        model.logits(token, position, cache)
    while len(tokens) < len(prompt) + num_tokens:
        logits = model.logits(tokens[-1], len(tokens) - 1, cache)
        tokens.append(plain_choice(logits, len(tokens), **parameters))
        if tokens[-1] in end_token_ids:
            break
    return tokens
