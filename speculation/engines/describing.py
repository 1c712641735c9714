"""What a device needs of a full model, in a folder of its own: some hundred kilobytes in place of all weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from speculation.engines.checkpoint import COMPANIONS
from speculation.engines.checkpoint_folder import CheckpointFolder
from speculation.engines.described import DESCRIPTION, SCHEMA_VERSION
from speculation.engines.exports import ExportFolder
from speculation.engines.files import confined
from speculation.engines.layouts import Layout
from speculation.engines.manifest import CONFIG, GENERATION, MANIFEST, PAIR, TOKENIZER
from speculation.engines.package import Package
from speculation.engines.pairs import load_full, load_model
from speculation.engines.selection import TERMS
from speculation.engines.staging import check_is_free, staged_folder
from speculation.errors import InvalidRequestError, PackageError

SMALL = (CONFIG, GENERATION, TOKENIZER, *COMPANIONS, *TERMS)


@dataclass(frozen=True, slots=True)
class Description:
    """What was made: the digest that both folders have, and the bytes of each."""

    digest: str
    files: tuple[str, ...]
    num_bytes: int
    model_bytes: int


def describe(path: Path, out: Path) -> Description:
    """Make ``out``, a full model to whoever runs none: tokenizer, limits, defaults and digest of the model in ``path``.

    Reads all of the model once. Of a package it is the package without graphs and weights, of others their small files and
    ``described.json``. ``out`` appears whole, or not at all. Raises ``InvalidRequestError`` for a folder that is there and for
    what has no description; ``PackageError`` for what is no model.
    """
    check_is_free(out)
    if (path / PAIR).is_file():
        raise InvalidRequestError(f"{path} is a pair; describe its full half", "model")
    model = load_model(path)
    _ = model.tokenizer, model.chat_template
    with staged_folder(out) as folder:
        if isinstance(model, Package):
            _copy(model.path, folder, {MANIFEST} | (set(model.manifest.files) & set(SMALL)))
        else:
            _copy(path, folder, {name for name in SMALL if (path / name).is_file()})
            (folder / DESCRIPTION).write_text(json.dumps(_recorded(model), indent=1) + "\n", "utf-8")
        made = load_full(folder)
        if made.digest != model.digest:
            raise PackageError(f"{path} changed while it was described; try again")
        files = tuple(sorted(file.name for file in folder.iterdir()))
        sizes = [sum(f.stat().st_size for f in place.rglob("*") if f.is_file()) for place in (folder, path)]
    return Description(model.digest, files, *sizes)


def _recorded(model: object) -> dict[str, object]:
    """Raises ``InvalidRequestError`` for layouts whose sizes are told by other files than ``config.json``."""
    if isinstance(model, ExportFolder) and model.layout is Layout.GENAI:
        raise InvalidRequestError(f"{model.path} is a folder of onnxruntime-genai, which is taken whole", "model")
    assert isinstance(model, CheckpointFolder | ExportFolder)
    return {"schema_version": SCHEMA_VERSION, "files": dict(model.digests)}


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in sorted(names):
        shutil.copyfile(confined(source, name, "model"), target / name)
