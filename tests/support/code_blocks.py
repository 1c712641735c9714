"""The fenced blocks of the pages, and the lines of those that hold commands."""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("examples", "loadtest", "models", "docs/vectors")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *(ROOT / folder / "README.md" for folder in FOLDERS)])
SHELL = ("", "sh", "bash", "console")
_FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language (empty: none was named), and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a block for a shell, without prompts and comments; a line that goes on after a backslash is one."""
        lines = self.text.replace("\\\n", " ").splitlines()
        plain = [line.removeprefix("$ ").strip() for line in lines]
        return [without_comment(line) for line in plain if line and not line.startswith("#")]


def without_comment(line: str) -> str:
    """A line up to a ``#`` that begins a word outside of quotes."""
    quote = ""
    for at, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and line[at - 1 : at] in ("", " "):
            return line[:at].rstrip()
    return line


def parts(line):
    """The commands of a line one by one, as a shell would start them."""
    return [part.strip() for part in re.split(r"&&|\|", line)]


def program_of(command: str) -> tuple[dict[str, str], str, list[str]]:
    """Of a command its variables, its program and its arguments; a ``&`` at the end is no argument."""
    words = shlex.split(command)
    variables: dict[str, str] = {}
    while words and re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", words[0]):
        name, _, variables[name] = words.pop(0).partition("=")
    return variables, words[0], [word for word in words[1:] if word != "&"]


def blocks() -> list[Block]:
    """All of them, in all pages."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for fence in _FENCE.finditer(text):
            line = text.count("\n", 0, fence.start()) + 1
            found.append(Block(str(page.relative_to(ROOT)), line, fence[2], textwrap.dedent(fence[3])))
    return found
