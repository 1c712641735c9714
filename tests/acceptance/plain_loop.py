"""Plain decoding, written apart from the product: its own forward in numpy, one token at a time, and its own choice.

Shares nothing with the engines or the choice but the weights file and the published rules (docs/choice-rule.md).
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


class PlainLlama:
    """Float32, one token of each text at a time, a growing cache each. They share the reading of the weights."""

    def __init__(self, package: Path) -> None:
        self.c = json.loads((package / "config.json").read_text())
        self.w = {k: v.astype(np.float32) for k, v in load_file(package / "model.safetensors").items()}

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.c["rms_norm_eps"]) * self.w[name + ".weight"]

    def times(self, x, name):
        return x @ self.w[name + ".weight"].T

    def logits(self, token, position, cache):
        return self.rows([token], [position], [cache])[0]

    def rows(self, tokens, positions, caches):
        """The logits behind each text's next token, a row a text."""
        c, d = self.c, self.c["hidden_size"] // self.c["num_attention_heads"]
        angles = np.divide.outer(positions, c["rope_theta"] ** (np.arange(0, d, 2) / d))[:, None]
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

        def rotated(heads):
            a, b = heads[..., : d // 2], heads[..., d // 2 :]
            return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1)

        x = self.w["model.embed_tokens.weight"][tokens]
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            h = self.norm(x, p + "input_layernorm")
            q, k, v = (self.times(h, f"{p}self_attn.{n}_proj").reshape(len(tokens), -1, d) for n in "qkv")
            seen = [attended(i, *row) for row in zip(rotated(q), rotated(k), v, caches, strict=True)]
            x = x + self.times(np.stack(seen), p + "self_attn.o_proj")
            h = self.norm(x, p + "post_attention_layernorm")
            gate = self.times(h, p + "mlp.gate_proj")
            x = x + self.times(gate / (1 + np.exp(-gate)) * self.times(h, p + "mlp.up_proj"), p + "mlp.down_proj")
        return self.times(self.norm(x, "model.norm"), "lm_head" if "lm_head.weight" in self.w else "model.embed_tokens")


def attended(layer, q, k, v, cache):
    """What one text's token takes from the tokens before it and from itself."""
    d = q.shape[-1]
    before = cache.get(layer, np.zeros((2, len(k), 0, d), np.float32))
    keys, values = cache[layer] = np.concatenate((before, np.stack((k, v))[:, :, None]), axis=2)
    scores = q.reshape(len(keys), -1, d) @ keys.transpose(0, 2, 1) / np.sqrt(np.float32(d))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ values).ravel()


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


def plain_texts(package, prompts, num_tokens, end_token_ids, parameters):
    """Prompt and continuation of each prompt with its own parameters, decoded by the full model alone."""
    model, caches, texts = PlainLlama(package), [{} for _ in prompts], [list(prompt) for prompt in prompts]
    going, position = list(range(len(prompts))), 0
    while going:
        tokens = [texts[i][position] for i in going]
        logits = model.rows(tokens, [position] * len(going), [caches[i] for i in going])
        position += 1
        for row, i in zip(logits, going, strict=True):
            if position == len(texts[i]):
                texts[i].append(plain_choice(row, position, **parameters[i]))
        going = [i for i in going if is_going(texts[i], len(prompts[i]), position, num_tokens, end_token_ids)]
    return texts


def is_going(text, num_prompt, position, num_tokens, end_token_ids):
    """Whether a text of which so many tokens are read wants more."""
    is_ended = len(text) > num_prompt and text[-1] in end_token_ids
    return position < num_prompt or not (is_ended or len(text) == num_prompt + num_tokens)
