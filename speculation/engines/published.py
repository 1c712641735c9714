"""What models have in common that lie in a folder as others publish them: the files beside the graphs or the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from speculation.engines import chat
from speculation.engines.chat import ChatTemplate
from speculation.engines.export_facts import ExportFacts, hugging_face_facts
from speculation.engines.files import CONFIG_LIMIT_BYTES, confined, digest_of, file_digest, read_bounded_json
from speculation.engines.generation_defaults import generation_defaults
from speculation.engines.manifest import CONFIG, GENERATION, TOKENIZER
from speculation.engines.tokenizer_files import load_tokenizer, meaning_of
from speculation.parameters import GenerationDefaults

DESCRIBING = (CONFIG, GENERATION, TOKENIZER)
"""Files that say what a model is, as far as they are there."""


class PublishedFolder:
    """The part of a ``Model`` that a configuration and a tokenizer give."""

    def __init__(self, path: Path, facts: ExportFacts) -> None:
        self.path = path
        self.facts = facts

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

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

    @cached_property
    def generation_defaults(self) -> GenerationDefaults:
        """Of ``generation_config.json``."""
        return generation_defaults(generation_config(self.path), f"{self.path / GENERATION}")

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of each file that is read: configurations, tokenizer, and what else makes this model."""
        names = {name for name in DESCRIBING if (self.path / name).is_file()} | set(self._others())
        return {name: file_digest(confined(self.path, name, "model")) for name in sorted(names)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of each file that is read."""
        return digest_of(dict(self.digests))

    def _others(self) -> Iterable[str]:
        """Files that are read besides those in ``DESCRIBING``."""
        return ()


def described_facts(path: Path) -> ExportFacts:
    """What ``config.json`` and ``generation_config.json`` of a folder say. Raises ``PackageError``."""
    return hugging_face_facts(*configurations(path))


def configurations(path: Path) -> tuple[Any, Any]:
    """The values of a folder's ``config.json`` and ``generation_config.json``. Raises ``PackageError``."""
    return read_bounded_json(confined(path, CONFIG, "model"), CONFIG_LIMIT_BYTES), generation_config(path)


def generation_config(path: Path) -> Any:
    """The object of a folder's ``generation_config.json``, an empty one where there is no such file."""
    is_there = (path / GENERATION).is_file()
    return read_bounded_json(confined(path, GENERATION, "model"), CONFIG_LIMIT_BYTES) if is_there else {}
