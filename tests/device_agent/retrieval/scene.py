"""A small embedding model, stores made with it, and files to put in."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from device_agent.retrieval import indexing
from device_agent.retrieval.documents import Cut
from device_agent.retrieval.embedder import Embedder
from device_agent.retrieval.store import Store
from tests.support import small_bert

CUT = Cut(24, 6)
TEXTS = {
    "fruit.md": "# Apples\n\nApples are round and red.\n\n# Pears\n\nPears are green, and longer than apples.\n",
    "tools.txt": "A hammer drives nails. A saw cuts wood.\n",
    "deep/stars.rst": "Stars\n=====\n\nA star is a ball of gas that shines.\n",
}


@functools.cache
def small_embedder() -> Embedder:
    with tempfile.TemporaryDirectory() as folder:
        return Embedder(small_bert.write(Path(folder)))


def new_store(path: Path, cut: Cut = CUT) -> Store:
    embedder = small_embedder()
    return Store.create(path, embedder.digest, embedder.dimension, cut)


def write_files(folder: Path, texts=TEXTS) -> Path:
    for name, text in texts.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return folder


def add(store: Store, *paths: Path, label=None):
    return indexing.add(store, small_embedder(), paths, label, lambda *told: None)
