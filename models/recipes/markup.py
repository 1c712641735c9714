"""reStructuredText sources to the plain text that a person reads.

Pure: text in, text out. Only the markup of CPython's documentation is known; anything else passes through unchanged.
"""

from __future__ import annotations

import re

_ROLE = re.compile(r":(?:[a-zA-Z]+:)*[a-zA-Z-]+:`([^`]+)`", re.DOTALL)
_EXPLICIT_TARGET = re.compile(r"^(.*?)\s*<([^<>]*)>$", re.DOTALL)
_LITERAL = re.compile(r"``([^`]+)``")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]+>`_{1,2}")
_REFERENCE = re.compile(r"`([^`]+)`_{1,2}")
_EMPHASIS = re.compile(r"(?<![\w*])\*{1,2}([^\s*](?:[^*\n]*[^\s*])?)\*{1,2}(?![\w*])")
_DIRECTIVE = re.compile(r"^(\s*)\.\. ([a-z0-9:_-]+)::\s*(.*)$", re.IGNORECASE)
_COMMENT = re.compile(r"^(\s*)\.\.(?:\s+(.*))?$")
_ADORNMENT = re.compile(r"^([=\-~^\"'*+#`:.])\1{2,}\s*$")
_OPTION = re.compile(r"^\s*:[a-z-]+:(\s.*)?$")

_DESCRIBES = frozenset(
    [
        "function",
        "method",
        "class",
        "attribute",
        "data",
        "exception",
        "classmethod",
        "staticmethod",
        "decorator",
        "module",
        "describe",
        "property",
        "coroutinefunction",
        "coroutinemethod",
        "awaitablefunction",
        "awaitablemethod",
        "abstractmethod",
        "decoratormethod",
        "opcode",
        "pdbcommand",
        "option",
        "cmdoption",
        "envvar",
        "c:function",
        "c:type",
        "c:macro",
        "c:member",
        "c:var",
        "c:struct",
        "c:enum",
        "cfunction",
        "ctype",
        "cmacro",
        "cvar",
        "cmember",
        "2to3fixer",
        "js:function",
    ]
)
_TITLED = {
    "note": "Note:",
    "warning": "Warning:",
    "caution": "Caution:",
    "important": "Important:",
    "tip": "Tip:",
    "seealso": "See also:",
    "impl-detail": "CPython implementation detail:",
    "rubric": "",
    "topic": "",
    "admonition": "",
    "centered": "",
}
_VERSIONED = {
    "versionadded": "New in version {0}.",
    "versionchanged": "Changed in version {0}.",
    "deprecated": "Deprecated since version {0}.",
}
_UNWRAPPED = frozenset(
    ["code-block", "sourcecode", "highlight", "code", "parsed-literal", "doctest", "testcode", "testoutput", "epigraph"]
)
_HEADINGS = {"=": "##", "*": "#", "#": "#", "-": "###", "^": "####", "~": "####", '"': "####", "'": "####"}


def _role_text(match: re.Match[str]) -> str:
    name, text = match.group(0).split("`")[0], match.group(1)
    target = _EXPLICIT_TARGET.match(text)
    if target and target.group(1):
        return target.group(1)
    text = text.lstrip("!")
    if text.startswith("~"):
        text = text[1:].rsplit(".", 1)[-1]
    calls = name.endswith((":func:", ":meth:")) and not text.endswith(")")
    if name == ":pep:":
        return f"PEP {text}"
    if name == ":rfc:":
        return f"RFC {text}"
    return text + "()" if calls else text


def inline(text: str) -> str:
    """Drop roles, literals, links and emphasis marks from running text."""
    text = _ROLE.sub(_role_text, text)
    text = _LITERAL.sub(r"\1", text)
    text = _LINK.sub(r"\1", text)
    text = _REFERENCE.sub(r"\1", text)
    text = _EMPHASIS.sub(r"\1", text)
    return text.replace("\\ ", "").replace("\\*", "*")


def _directive(indent: str, name: str, argument: str) -> str | None:
    """The line that stands for a directive; None drops the directive together with its body."""
    if name in _DESCRIBES:
        return indent + inline(argument)
    if name in _TITLED:
        return (indent + f"{_TITLED[name]} {inline(argument)}".strip()).rstrip()
    if name in _VERSIONED:
        version, _, rest = argument.partition(" ")
        return indent + f"{_VERSIONED[name].format(version)} {inline(rest)}".rstrip()
    if name in ("deprecated-removed",):
        since, _, rest = argument.partition(" ")
        until, _, rest = rest.partition(" ")
        return indent + f"Deprecated since version {since}, will be removed in version {until}. {inline(rest)}".rstrip()
    return "" if name in _UNWRAPPED else None


def _indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def _skip_body(lines: list[str], start: int, indent: int) -> int:
    at = start
    while at < len(lines) and (not lines[at].strip() or _indent_of(lines[at]) > indent):
        at += 1
    return at


def _skip_options(lines: list[str], start: int) -> int:
    at = start
    while at < len(lines) and _OPTION.match(lines[at]):
        at += 1
    return at


def to_plain_text(source: str) -> str:
    """One reStructuredText document as plain text: headings as ``## Title``, code blocks kept, bookkeeping dropped."""
    lines = source.expandtabs().splitlines()
    out: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        directive = _DIRECTIVE.match(line)
        if directive:
            indent, name, argument = directive.groups()
            stands_for = _directive(indent, name.lower(), argument)
            at = _skip_options(lines, at + 1)
            if stands_for is None:
                at = _skip_body(lines, at, len(indent))
            elif stands_for:
                out.append(stands_for)
            continue
        if _COMMENT.match(line) and not line.lstrip().startswith("..."):
            at = _skip_body(lines, at + 1, _indent_of(line))
            continue
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if _ADORNMENT.match(line) and (not following.strip() or (at + 2 < len(lines) and _ADORNMENT.match(lines[at + 2]))):
            at += 1
            continue
        if line.strip() and line[0] != " " and _ADORNMENT.match(following):
            out.append(f"{_HEADINGS.get(following[0], '###')} {inline(line.strip())}")
            at += 2
            continue
        out.append(line.rstrip())
        at += 1
    text = inline("\n".join(out))
    text = re.sub(r"::\n", ":\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
