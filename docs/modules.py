"""Writes the list of modules in ARCHITECTURE.md from the first line of each module's docstring; ``make fmt`` runs it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "ARCHITECTURE.md"
PACKAGES = ("outrider", "device_agent", "cloud_verifier", "speculation")
BEGIN, END = "<!-- modules:begin -->\n", "<!-- modules:end -->"


def modules() -> list[Path]:
    """Every module with code of its own, generated ones left out."""
    found = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in found if path.name != "__init__.py" and path.parent.name != "v1"]


def lines() -> str:
    """A line of Markdown for each module."""
    return "".join(f"- `{path.relative_to(ROOT)}`: {_law(path)}\n" for path in modules())


def _law(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return docstring.partition("\n")[0].replace("``", "`")


if __name__ == "__main__":
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    PAGE.write_text(before + BEGIN + lines() + END + rest.partition(END)[2], "utf-8")
