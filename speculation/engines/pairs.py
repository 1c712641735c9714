"""A model in any layout, and a pair of any two models that speak of the same tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from speculation.engines.checkpoint_folder import CheckpointFolder
from speculation.engines.described import DescribedFolder
from speculation.engines.exports import ExportFolder
from speculation.engines.files import digest_of
from speculation.engines.layouts import Layout, layout_of, only_describes
from speculation.engines.model import Model, ModelPair
from speculation.engines.package import Package, load_pair
from speculation.engines.tokenizer_files import difference, meaning_of
from speculation.errors import PackageError
from speculation.protocol.messages import PairIdentity


@dataclass(frozen=True, slots=True)
class FolderPair:
    """A ``ModelPair`` of two folders that nobody tied together."""

    draft: Model
    full: Model
    identity: PairIdentity
    prompts: tuple[Mapping[str, str], ...] = ()


def load_model(path: Path) -> Model:
    """The model in a folder, whichever layout it has. Raises ``PackageError`` with what was found, and what would be right."""
    layout = layout_of(path)
    if layout is Layout.PACKAGE:
        return Package(path)
    return CheckpointFolder(path) if layout is Layout.CHECKPOINT else ExportFolder(path)


def load_full(path: Path) -> Model:
    """As ``load_model``. A folder without graph or weights will do, too: a device runs no full model, and a verifier may have a
    server elsewhere run it; an engine is refused then."""
    return DescribedFolder(path) if only_describes(path) else load_model(path)


def pair_of(draft_path: Path, full_path: Path) -> FolderPair:
    """A draft and a full model out of two folders. Its identity follows from the files, so that two ends with the same
    folders agree. Raises ``PackageError`` where one cannot be used, or their tokenizers do not mean the same."""
    draft, full = load_model(draft_path), load_full(full_path)
    tokenizer_digest = _shared_tokenizer(draft, full)
    pair_digest = digest_of({"draft": draft.digest, "full": full.digest})
    return FolderPair(draft, full, PairIdentity(tokenizer_digest, pair_digest, full.digest))


def models_of(pair: Path | None, draft: Path | None, full: Path | None) -> ModelPair:
    """What the settings ``pair``, ``draft`` and ``full`` name: two folders, or a pair, by default the bundled one."""
    if draft is not None and full is not None:
        return pair_of(draft, full)
    return load_pair(pair)


def _shared_tokenizer(draft: Model, full: Model) -> str:
    """The digest of what both tokenizers do. Each must be within its own model's vocabulary, or it cannot be loaded."""
    for model in (draft, full):
        _ = model.tokenizer
    mine, other = meaning_of(draft.path), meaning_of(full.path)
    digests = digest_of(mine), digest_of(other)
    if digests[0] != digests[1]:
        example = difference(mine, other)
        has = f"{draft.path} has {digests[0]}, {full.path} has {digests[1]}"
        raise PackageError(f"the tokenizers differ: {has}; {example} (draft, then full): a pair shares one tokenizer")
    return digests[0]
