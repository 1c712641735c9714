"""The library ``transformers`` on PyTorch: sessions of equal length as one batch over one growing cache."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals.base import Tokens, one_row_each


class Transformers:
    """A causal language model in float32, with its default attention."""

    def __init__(self, checkpoint: Path) -> None:
        import torch
        import transformers

        torch.set_num_threads(1)
        transformers.logging.disable_progress_bar()
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        self._torch: Any = torch
        self._library: Any = transformers
        self._model = self._library.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self._prompts = np.empty((0, 0), np.int64)
        self._pasts: dict[int, Any] = {}

    def fill(self, prompts: Tokens) -> None:
        self._prompts = prompts

    def ready(self, tokens: Tokens) -> None:
        if len(tokens) not in self._pasts:
            self._pasts[len(tokens)] = self._library.DynamicCache(config=self._model.config)
            self._run(self._prompts[: len(tokens)])

    def step(self, tokens: Tokens) -> NDArray[np.float32]:
        return one_row_each(self._run(tokens).numpy(), *tokens.shape)

    def rewind(self, sessions: int) -> None:
        past = self._pasts[sessions]
        past.crop(self._prompts.shape[1] - past.get_seq_length())

    def _run(self, tokens: Tokens) -> Any:
        with self._torch.inference_mode():
            given = self._torch.from_numpy(tokens)
            return self._model(input_ids=given, past_key_values=self._pasts[len(tokens)], use_cache=True).logits
