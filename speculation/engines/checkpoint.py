"""A Hugging Face checkpoint on disk: configuration, tokenizer, and weights that are read one at a time.

Nothing in the folder is trusted: a refusal is a ``PackageError`` that names the file, what was found and what would be right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speculation.engines.files import confined, read_bounded_json, require
from speculation.engines.manifest import CONFIG, GENERATION, INDEX, TOKENIZER, WEIGHTS
from speculation.engines.safetensors_file import SafetensorsFile, Tensor
from speculation.errors import PackageError

KIND = "checkpoint"
CONFIG_LIMIT_BYTES, TOKENIZER_LIMIT_BYTES, INDEX_LIMIT_BYTES = 16 << 20, 64 << 20, 64 << 20
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
COMPANIONS = ("tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", GENERATION)
"""Small files that other software reads beside a model; they go with it where they are there."""


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """What the folder around a checkpoint says of it."""

    name: str
    vocabulary_size: int
    context_length: int
    num_parameters: int


class Checkpoint(Mapping[str, NDArray[np.float32]]):
    """The weights of a folder by name; each is read, as float32, when it is asked for, and not kept. What older software saved
    of its attention's masks is none of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        require(path.is_dir(), f"{path} is not a folder; a checkpoint is a folder with {CONFIG}, {TOKENIZER} and {WEIGHTS}")
        self.config: Mapping[str, Any] = self._json(CONFIG)
        is_quantised = self.config.get("quantization_config") is not None
        require(not is_quantised, f"{path / CONFIG} has quantization_config; convert the checkpoint that it was made from")
        self.small_files = self._small_files()
        self._files = self._open_files()

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self._files[name].read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def tensor(self, name: str) -> Tensor:
        """What the file's header says of a weight, without reading it."""
        return self._files[name].tensors[name]

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """How many values each weight has, without reading any."""
        return {name: self.tensor(name).size for name in self}

    def are_equal(self, name: str, other: str) -> bool:
        """Whether two weights of one shape hold the same values; a block of each is in memory at a time."""
        one, two = (self._files[n].blocks(n) for n in (name, other))
        is_same_shape = self.tensor(name).shape == self.tensor(other).shape
        return is_same_shape and all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold weights, in order of their names."""
        return tuple(sorted({file.path for file in self._files.values()}))

    def generation_config(self) -> Mapping[str, Any]:
        """``generation_config.json``, empty where there is none."""
        return self._json(GENERATION) if GENERATION in self.small_files else {}

    def _json(self, name: str) -> Mapping[str, Any]:
        path = confined(self.path, name, KIND)
        value = read_bounded_json(path, CONFIG_LIMIT_BYTES)
        require(isinstance(value, dict), f"{path} must hold a JSON object")
        return dict(value)

    def _small_files(self) -> tuple[str, ...]:
        """The files that a package takes over byte for byte."""
        found = [name for name in COMPANIONS if (self.path / name).exists() or (self.path / name).is_symlink()]
        for name in (CONFIG, TOKENIZER, *found):
            size, limit = confined(self.path, name, KIND).stat().st_size, CONFIG_LIMIT_BYTES
            limit = TOKENIZER_LIMIT_BYTES if name == TOKENIZER else limit
            require(size <= limit, f"{self.path / name} has {size} bytes; at most {limit} are read")
        return (CONFIG, TOKENIZER, *found)

    def _open_files(self) -> dict[str, SafetensorsFile]:
        """The file of each weight."""
        if (self.path / WEIGHTS).exists() or (self.path / WEIGHTS).is_symlink():
            file = SafetensorsFile(confined(self.path, WEIGHTS, KIND))
            return dict.fromkeys(file.tensors, file)
        if not (self.path / INDEX).exists():
            pickles = sorted(path.name for pattern in PICKLES for path in self.path.glob(pattern))
            found = f"it has {', '.join(pickles[:3])}, and a pickle can run code: save it as safetensors" if pickles else ""
            hint = found or "one of them must be there"
            raise PackageError(f"{self.path} has neither {WEIGHTS} nor {INDEX}; {hint}")
        return self._by_index()

    def _by_index(self) -> dict[str, SafetensorsFile]:
        """Both ways: the index names no weight that its file lacks, and no file holds a weight that the index leaves out."""
        path = confined(self.path, INDEX, KIND)
        index = read_bounded_json(path, INDEX_LIMIT_BYTES)
        places: Any = index.get("weight_map") if isinstance(index, dict) else None
        is_map = isinstance(places, dict) and bool(places) and all(isinstance(place, str) for place in places.values())
        require(is_map, f"{path} must have weight_map, from each weight's name to its file's")
        files = {name: SafetensorsFile(confined(self.path, name, KIND)) for name in sorted(set(places.values()))}
        for name, place in places.items():
            is_there = name in files[place].tensors or name in files[place].masks
            require(is_there, f"{path} places {name} in {place}, which has no such tensor")
        for place, file in files.items():
            extra = sorted(name for name in file.tensors if places.get(name) != place)
            require(not extra, f"{file.path} holds {', '.join(extra[:4])}, which {INDEX} does not place there")
        return {name: files[place] for name, place in places.items() if name not in files[place].masks}
