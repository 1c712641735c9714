"""Corpus and tokenizer of the bundled pair.

Sources: the reStructuredText of CPython's documentation (Debian's ``python3.11-doc`` carries it under ``_sources``) and
the modules of the standard library, both under the PSF licence version 2. Some files are held out, by a hash of their
name, for validation and for prompts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from models.recipes.markup import to_plain_text

DOCUMENTATION = Path("/usr/share/doc/python3.11/html/_sources")
VOCABULARY_SIZE = 4096
END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, "<|user|>", "<|assistant|>", "<|pad|>")
HELD_OUT_EVERY = 24
PROMPT_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Document:
    """One file of the corpus as plain text."""

    name: str
    kind: str
    text: str

    @property
    def is_held_out(self) -> bool:
        """Chosen by the name alone, so that the same files stay out on every machine."""
        return int(hashlib.sha256(self.name.encode()).hexdigest(), 16) % HELD_OUT_EVERY == 0


def documentation(root: Path) -> Iterator[Document]:
    """Every documentation page once (symbolic links to the same file are dropped)."""
    seen: set[Path] = set()
    for path in sorted(root.rglob("*.rst.txt")):
        name = str(path.relative_to(root))
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        yield Document(name, "docs", to_plain_text(path.read_text("utf-8")))


def standard_library(root: Path) -> Iterator[Document]:
    """The standard library's modules without tests, vendored wheels and installed packages."""
    skipped = {
        "test",
        "tests",
        "idle_test",
        "site-packages",
        "dist-packages",
        "lib2to3",
        "__pycache__",
        "ensurepip",
        "idlelib",
        "turtledemo",
    }
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if skipped.intersection(relative.parts) or path.stat().st_size > 300_000:
            continue
        yield Document(str(relative), "code", path.read_text("utf-8", errors="replace"))


def train_tokenizer(documents: list[Document]) -> Tokenizer:
    """Byte-level BPE over the training documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((d.text for d in documents if not d.is_held_out), trainer)
    return tokenizer


def whole_words(text: str) -> str:
    """The text without its last word, which may be cut, and without the space before it."""
    return text.rstrip()[: -len(text.split()[-1])].rstrip()


def prompts(tokenizer: Tokenizer, documents: list[Document], count: int) -> list[dict[str, object]]:
    """Openings of sections of held-out documentation, cut at ``PROMPT_TOKENS`` tokens."""
    found: list[dict[str, object]] = []
    for document in documents:
        if document.kind != "docs" or not document.is_held_out:
            continue
        sections = document.text.split("\n## ")[1:] or document.text.split("\n### ")[1:]
        for number, section in enumerate(sections[:6]):
            token_ids = tokenizer.encode("## " + section).ids
            if len(token_ids) < 2 * PROMPT_TOKENS:
                continue
            text = whole_words(tokenizer.decode(token_ids[:PROMPT_TOKENS]))
            title = section.splitlines()[0].strip()
            found.append({"source": f"{document.name}#{number}", "title": title, "text": text})
    found.sort(key=lambda p: hashlib.sha256(str(p["source"]).encode()).hexdigest())
    return found[:count]


def build(documentation_root: Path, library_root: Path, out: Path, tokenizer_file: Path | None = None) -> None:
    """Write ``tokenizer.json``, ``prompts.json``, one token array a split and kind, and ``corpus.json``.

    ``tokenizer_file``: that of a release to go on from, used as it is; None trains one.
    """
    documents = [*documentation(documentation_root), *standard_library(library_root)]
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(documents) if tokenizer_file is None else Tokenizer.from_file(str(tokenizer_file))
    tokenizer.save(str(out / "tokenizer.json"))
    end = tokenizer.token_to_id(END_OF_TEXT)
    digest, facts = hashlib.sha256(), dict[str, object]()
    for split in ("train", "validation"):
        for kind in ("docs", "code"):
            chosen = [d for d in documents if d.kind == kind and d.is_held_out == (split == "validation")]
            token_ids: list[int | None] = []
            for document in chosen:
                digest.update(document.text.encode("utf-8"))
                token_ids += [end, *tokenizer.encode(document.text).ids]
            np.save(out / f"{split}-{kind}.npy", np.array(token_ids, np.uint16))
            facts[f"{split}-{kind}"] = {
                "documents": len(chosen),
                "bytes": sum(len(d.text.encode()) for d in chosen),
                "tokens": len(token_ids),
            }
    (out / "prompts.json").write_text(
        json.dumps(prompts(tokenizer, documents, 64), indent=1, ensure_ascii=False) + "\n", "utf-8"
    )
    facts["sha256"] = digest.hexdigest()
    (out / "corpus.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documentation", type=Path, default=DOCUMENTATION)
    parser.add_argument("--library", type=Path, default=Path(sysconfig.get_path("stdlib")))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FILE", help="tokenizer.json of the release that training goes on from"
    )
    arguments = parser.parse_args()
    if not arguments.documentation.is_dir():
        parser.error(f"{arguments.documentation} is not there: install Debian's python3.11-doc, or name the folder")
    build(arguments.documentation, arguments.library, arguments.out, arguments.tokenizer)


if __name__ == "__main__":
    main()
