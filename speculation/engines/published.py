"""What models have in common that lie in a folder as others publish them: the files beside the graphs or the weights."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from speculation.engines import chat
from speculation.engines.chat import ChatTemplate
from speculation.engines.export_facts import ExportFacts
from speculation.engines.files import confined, digest_of
from speculation.engines.manifest import TOKENIZER
from speculation.engines.tokenizer_files import load_tokenizer, meaning_of


class PublishedFolder:
    """The part of a ``Model`` that a configuration and a tokenizer give."""

    def __init__(self, path: Path, facts: ExportFacts) -> None:
        self.path = path
        self.facts = facts

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def checkpoint_variants(self) -> tuple[str, ...]:
        return ()

    @property
    def context_length(self) -> int:
        return self.facts.context_length

    @property
    def vocabulary_size(self) -> int:
        return self.facts.vocabulary_size

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        return self.facts.end_token_ids

    @cached_property
    def tokenizer_digest(self) -> str:
        """SHA-256 over what the tokenizer does, however its file is spelled."""
        return digest_of(meaning_of(self.path))

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(confined(self.path, TOKENIZER, "model"), self.vocabulary_size, self.facts.source, leaves_out=True)

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        def find(name: str) -> Path | None:
            return confined(self.path, name, "model") if (self.path / name).is_file() else None

        return chat.load(find)
