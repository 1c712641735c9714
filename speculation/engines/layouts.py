"""Which layout a model folder has, told by the files in it."""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from speculation.engines.files import require
from speculation.engines.manifest import CONFIG, INDEX, MANIFEST, PAIR, TOKENIZER, WEIGHTS
from speculation.errors import PackageError

GENAI_CONFIG = "genai_config.json"
EXPORT_MANIFEST = "export.json"
GRAPH_FOLDERS = ("onnx", "")
FIRST, WITH_PAST = "decoder_model", "decoder_with_past_model"
"""The two graphs of a decoder that was split: one begins a text, the other one goes on behind a cache, and with an empty cache
begins one as well."""
STEMS = ("model", f"{FIRST}_merged", WITH_PAST)
GRAPH_NAMES = tuple(re.compile(rf"{stem}(?:_(?P<variant>[A-Za-z0-9_]+))?\.onnx") for stem in STEMS)
"""What exports call their graphs now, and what they called them; where several are there, the first of a variant is taken."""
PLAIN_VARIANT = "fp32"
SHOWN_FILES = 8
OTHER_TOOLS = {PAIR, EXPORT_MANIFEST}
"""Files of folders that are something else, whatever lies beside them."""


class Layout(enum.Enum):
    """The layouts that load; the value is what people call them."""

    PACKAGE = "package"
    HUGGING_FACE = "hugging-face"
    GENAI = "genai"
    TRANSFORMERS_EXPORT = "transformers-export"
    CHECKPOINT = "checkpoint"


def layout_of(path: Path) -> Layout:
    """The layout of a folder. Raises ``PackageError`` with what was found, and what would be right, for any other."""
    require(path.is_dir(), f"{path} is not a folder; a model is a folder, such as one that was downloaded from a model hub")
    if (path / MANIFEST).is_file():
        return Layout.PACKAGE
    graphs, is_genai, is_exported = graph_files(path).values(), (path / GENAI_CONFIG).is_file(), _is_transformers_export(path)
    # Some repositories carry a configuration of another tool beside graphs in onnx/, which it does not describe.
    is_described = (is_genai or is_exported) and all("/" not in graph for graph in graphs)
    if (path / CONFIG).is_file() and graphs and not is_described:
        return _with_tokenizer(path, Layout.HUGGING_FACE)
    if is_genai:
        return _with_tokenizer(path, Layout.GENAI)
    if (path / CONFIG).is_file() and is_exported:
        return _with_tokenizer(path, Layout.TRANSFORMERS_EXPORT)
    if {CONFIG} < (names := set(_names(path))) and names & {WEIGHTS, INDEX} and not names & OTHER_TOOLS:
        return _with_tokenizer(path, Layout.CHECKPOINT)
    raise PackageError(f"{path} is no model that can be loaded: {_advice(path)}")


def only_describes(path: Path) -> bool:
    """Whether a folder says what a model is, in ``config.json`` and ``tokenizer.json``, and has nothing to run."""
    if any((path / name).exists() for name in (MANIFEST, PAIR, GENAI_CONFIG, WEIGHTS, INDEX)) or graph_files(path):
        return False
    if _is_transformers_export(path):
        return False
    return all((path / name).is_file() for name in (CONFIG, TOKENIZER))


def graph_files(path: Path) -> Mapping[str, str]:
    """Variants of a Hugging Face export: name -> path of the graph in the folder. ``onnx/`` goes before the top."""
    return graphs_among(f"{folder}/{name}" if folder else name for folder in GRAPH_FOLDERS for name in _names(path, folder))


def graphs_among(names: Iterable[str]) -> Mapping[str, str]:
    """As ``graph_files``, of the paths of files in a folder that may lie elsewhere."""
    found: dict[str, str] = {}
    ordered = sorted(names)
    for folder, pattern in itertools.product(GRAPH_FOLDERS, GRAPH_NAMES):
        for path in ordered:
            parent, _, name = path.rpartition("/")
            if parent == folder and (match := pattern.fullmatch(name)):
                found.setdefault(match["variant"] or PLAIN_VARIANT, path)
    return found


def _is_transformers_export(path: Path) -> bool:
    """Whether ``transformers`` 5 exported to ONNX here; it writes the same list of what it made for other formats."""
    return (path / EXPORT_MANIFEST).is_file() and any(name.endswith(".onnx") for name in _names(path))


def _with_tokenizer(path: Path, layout: Layout) -> Layout:
    is_there = (path / TOKENIZER).exists()
    require(is_there, f"{path} has no {TOKENIZER}; copy the one of the model it was exported from")
    return layout


def _advice(path: Path) -> str:
    names = _names(path)
    if PAIR in names:
        return f"it holds {PAIR}, so it is a pair: give it as the pair, or give one of its halves"
    if EXPORT_MANIFEST in names:
        lacks = f"no {CONFIG}" if CONFIG not in names else "no .onnx graph"
        return f"it is an export of transformers 5 ({EXPORT_MANIFEST}) with {lacks}; export it with OnnxExporter"
    decoders = [name for folder in GRAPH_FOLDERS for name in _names(path, folder) if re.fullmatch(r".*decoder.*\.onnx", name)]
    if decoders:
        found = f"it has decoder graphs of the older form, {_shown(decoders)}, and lacks the one with a past"
        twin = decoders[0].replace(FIRST, WITH_PAST) if decoders[0].startswith(FIRST) else f"{WITH_PAST}.onnx"
        return f"{found}; {twin} must lie beside it, or export it again into one model.onnx"
    if CONFIG not in names:
        return f"it has neither {MANIFEST}, nor {CONFIG}, nor {GENAI_CONFIG}, but {_shown(names)}"
    if any(name.endswith(".safetensors") for name in names):
        return f"it has weights, but neither {WEIGHTS} nor {INDEX}, which is what they are called in a checkpoint"
    return f"it has {CONFIG} but no graph; onnx/model.onnx (or model_q4.onnx, ...) is right, found: {_shown(names)}"


def _names(path: Path, inner: str = "") -> list[str]:
    return sorted(_entries(path, inner))


def _entries(path: Path, inner: str) -> Iterator[str]:
    """Of a folder, or of one in it, unless that is a link, which may lead out of it. A model's own folder may be one."""
    folder = path / inner
    if folder.is_dir() and not (inner and folder.is_symlink()):
        yield from (entry.name for entry in folder.iterdir())


def _shown(names: list[str]) -> str:
    return ", ".join(names[:SHOWN_FILES]) + (", ..." if len(names) > SHOWN_FILES else "") if names else "nothing"
