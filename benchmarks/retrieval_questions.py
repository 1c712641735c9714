"""Documents, some of which the bundled pair has learned from and some not, and questions whose answers are in them.

The documents are docstrings of Python's standard library, a text a module: of those modules that were held out
(``models/recipes/corpus.py``), and of others. A question is how such an entry begins: its signature and first words, which the
pair, a completer of documentation, goes on from; the answer is the rest of the docstring.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.recipes.corpus import Document, standard_library

OPENING_WORDS, LEAST_REST_WORDS = 8, 12
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Question:
    """``prompt`` begins an entry of the document ``name`` whose text lies from ``start`` to ``end``, in characters."""

    prompt: str
    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Page:
    """The documentation of a module, and what can be asked of it."""

    name: str
    text: str
    questions: Sequence[Question]


def pages(num_others: int) -> tuple[list[Page], list[Page]]:
    """Those of the held-out modules, and of so many others."""
    modules = list(standard_library(Path(sysconfig.get_path("stdlib"))))
    held_out = [_page(module) for module in modules if module.is_held_out]
    others = sorted((module for module in modules if not module.is_held_out), key=_shuffled)
    told = (page for page in map(_page, others) if page.questions)
    return [page for page in held_out if page.questions], [page for page, _ in zip(told, range(num_others), strict=False)]


def _shuffled(module: Document) -> str:
    return hashlib.sha256(module.name.encode()).hexdigest()


def _page(module: Document) -> Page:
    name = module.name.removesuffix(".py").replace("/", ".") + ".txt"
    text, questions = f"## {name.removesuffix('.txt')}\n\n", list[Question]()
    for signature, docstring in _entries(module.text):
        words = docstring.split()
        entry = f"{signature}\n\n{textwrap.indent(docstring, '   ')}\n\n"
        if len(words) >= OPENING_WORDS + LEAST_REST_WORDS:
            opening = f"{signature}\n\n   {' '.join(words[:OPENING_WORDS])}"
            questions.append(Question(opening, name, len(text), len(text) + len(entry)))
        text += entry
    return Page(name, text, questions)


def _entries(source: str) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, Definition) and (docstring := ast.get_docstring(node)):
            arguments = "" if isinstance(node, ast.ClassDef) else ast.unparse(node.args)
            yield f"{node.name}({arguments})", docstring
