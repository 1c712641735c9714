"""Prompts that take in earlier results: ``{{ outline }}`` is the text that sub-task ``outline`` wrote. Pure.

They come from clients, so of Jinja's language only this is taken: text, results, quoted text, and five filters that cut a text
or change its case. No loops, conditions, calls, attributes, arithmetic: what a prompt costs to fill is what its results hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2 import Template as Compiled
from jinja2.sandbox import ImmutableSandboxedEnvironment

from device_agent.checks import check_unicode
from speculation.errors import InvalidRequestError, UnknownNameError

PARAMETER = "prompt"
TAGS = ("{{", "{%", "{#")
MAX_TAGS = 64
MAX_CHARACTERS = 32_768
"""Of a prompt with results in it. One without is as long as the agent takes prompts."""

MAX_FILTERS = 8
MAX_COUNT = 10_000
RESERVED = frozenset(
    {
        "and",
        "as",
        "block",
        "caller",
        "else",
        "false",
        "False",
        "for",
        "from",
        "if",
        "import",
        "in",
        "include",
        "is",
        "kwargs",
        "loop",
        "macro",
        "none",
        "None",
        "not",
        "or",
        "self",
        "set",
        "super",
        "true",
        "True",
        "varargs",
        "with",
        "without",
    }
)
"""Words that Jinja reads as something else than the name of a result."""


def first_words(text: str, count: int) -> str:
    return " ".join(text.split(maxsplit=count)[:count])


def first_lines(text: str, count: int) -> str:
    return "\n".join(text.splitlines()[:count])


FILTERS: dict[str, Callable[..., str]] = {
    "trim": str.strip,
    "lower": str.lower,
    "upper": str.upper,
    "words": first_words,
    "lines": first_lines,
}
COUNTED = frozenset({"words", "lines"})
HELP = (
    "text, {{ name }} and {{ name | filter }} are all there is; write braces that are meant as {{ '{{' }} or inside {% raw %}"
)

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_ENVIRONMENT.filters = dict(FILTERS)
_ENVIRONMENT.globals = {}


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt; ``names`` are the results that it takes in, in order. Made by ``Template.of``."""

    source: str
    names: tuple[str, ...] = ()
    compiled: Compiled | None = None

    @classmethod
    def of(cls, source: str) -> Template:
        """Raises ``InvalidRequestError`` for what is no prompt of this kind."""
        if not any(tag in source for tag in TAGS):
            return cls(source)
        _check_size(source)
        try:
            tree = _ENVIRONMENT.parse(source)
        except TemplateSyntaxError as error:
            raise _refusal(f"line {error.lineno}: {error.message}") from error
        except RecursionError as error:
            raise _refusal("it is nested too deep") from error
        except ValueError as error:  # a number of more digits than Python reads
            raise _refusal("a number in it is too long") from error
        names = tuple(dict.fromkeys(_names(tree.body)))
        return cls(source, names, _ENVIRONMENT.from_string(tree))

    def fill(self, results: Mapping[str, str], limit_bytes: int) -> str:
        """The prompt with these results. Raises ``InvalidRequestError`` as soon as it is longer than ``limit_bytes``."""
        if self.compiled is None:
            return self.source
        pieces: list[str] = []
        num_bytes = 0
        for piece in self.compiled.generate({name: results[name] for name in self.names}):
            num_bytes += len(piece.encode())
            if num_bytes > limit_bytes:
                why = f"with the results in it, it is longer than the {limit_bytes} bytes that this agent takes"
                raise InvalidRequestError(f"{why}; take in fewer of them, or with | words(N)", PARAMETER)
            pieces.append(piece)
        return "".join(pieces)


def _check_size(source: str) -> None:
    num_tags = sum(source.count(tag) for tag in TAGS)
    if num_tags > MAX_TAGS:
        raise InvalidRequestError(f"a prompt has at most {MAX_TAGS} places for results, not {num_tags}", PARAMETER)
    if len(source) > MAX_CHARACTERS:
        what = f"a prompt with results in it has at most {MAX_CHARACTERS} characters, not {len(source)}"
        raise InvalidRequestError(what, PARAMETER)


def _names(body: Sequence[nodes.Node]) -> Iterator[str]:
    """The results that are taken in. Raises ``InvalidRequestError`` for whatever else is there."""
    for node in body:
        if not isinstance(node, nodes.Output):
            raise _refusal(f"line {node.lineno}: {type(node).__name__} is not taken here")
        for part in node.nodes:
            inner = _unfiltered(part)
            if isinstance(inner, nodes.Name) and inner.name not in RESERVED:
                yield inner.name
            elif isinstance(inner, nodes.Const) and isinstance(inner.value, str):
                check_unicode(inner.value, PARAMETER)  # an escape may stand for half of a surrogate pair
            elif not isinstance(inner, nodes.TemplateData):
                raise _refusal(f"line {inner.lineno}: {type(inner).__name__} is not taken here")


def _unfiltered(node: nodes.Node) -> nodes.Node:
    """What stands before its filters, each of which is judged."""
    for _ in range(MAX_FILTERS):
        if not isinstance(node, nodes.Filter) or node.node is None:
            return node
        _check_filter(node)
        node = node.node
    raise _refusal(f"line {node.lineno}: more than {MAX_FILTERS} filters in a row")


def _check_filter(node: nodes.Filter) -> None:
    if node.name not in FILTERS:
        raise UnknownNameError("filter", node.name, FILTERS, PARAMETER)
    wanted = 1 if node.name in COUNTED else 0
    counts = [arg.value if isinstance(arg, nodes.Const) else None for arg in node.args]
    is_plain = not (node.kwargs or node.dyn_args or node.dyn_kwargs)
    if not (is_plain and len(counts) == wanted and all(type(count) is int and 1 <= count <= MAX_COUNT for count in counts)):
        how = f"a number from 1 to {MAX_COUNT}, as in {node.name}(50)" if wanted else "nothing in brackets"
        raise _refusal(f"line {node.lineno}: the filter {node.name} takes {how}")


def _refusal(fault: str) -> InvalidRequestError:
    return InvalidRequestError(f"the prompt is no template: {fault}; {HELP}", PARAMETER)
