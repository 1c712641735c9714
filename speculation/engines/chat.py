"""A model's own way to write a conversation as one text: the Jinja template that comes with its tokenizer.

Templates are code of whoever made the model, so they run in Jinja's immutable sandbox, see nothing but plain JSON values, and
their text is bounded. A template is looked for where Hugging Face's tools put it: ``chat_template.jinja``, else the entry
``chat_template`` of ``tokenizer_config.json`` (one template, or a list of named ones); and so are special tokens, which may
stand in ``special_tokens_map.json`` alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from speculation import foreign_json
from speculation.errors import InvalidRequestError, PackageError

TEMPLATE_FILE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"
TOKENS_FILE, TOKENS_ARE_HERE = "special_tokens_map.json", "added_tokens_decoder"
"""Where older software kept a model's special tokens, and the entry of newer configurations beside which that is not read."""
DEFAULT = "default"
MAX_TEMPLATE_CHARACTERS = 1_000_000
MAX_RENDERED_CHARACTERS = 4_000_000
MAX_POWER = 64
"""Numbers of a template are small: line counts and the like."""

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""What a template may call its special tokens."""

_FAULTS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template may end with: Jinja's own errors, and those of the operators and filters that it uses."""

Message = Mapping[str, Any]
Find = Callable[[str], Path | None]


class ChatTemplate:
    """One template. ``special_tokens`` are texts by the names of ``SPECIAL_TOKENS``; ``now`` is the template's clock.

    Raises ``PackageError`` for what is no template.
    """

    def __init__(
        self, source: str, special_tokens: Mapping[str, str] | None = None, now: Callable[[], datetime] = datetime.now
    ) -> None:
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise PackageError(f"a chat template has at most {MAX_TEMPLATE_CHARACTERS} characters, not {len(source)}")
        self._special_tokens = dict(special_tokens or {})
        environment = _environment(now)
        try:
            self._template = environment.from_string(source)
        # Jinja hands on what Python has against the code that it makes: blocks too deep within each other, say.
        except (jinja2.TemplateError, MemoryError, RecursionError, SyntaxError, ValueError) as error:
            raise PackageError(f"the chat template is not Jinja: {error}") from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True, **variables: object) -> str:
        """The conversation as one text, special tokens spelt out: encode it without adding any.

        ``variables`` are what the template knows besides (``tools``, ``enable_thinking``, ...). Raises
        ``InvalidRequestError`` where the template refuses the messages, or does not get on with them.
        """
        given = {**self._special_tokens, **variables, "messages": messages, "add_generation_prompt": add_generation_prompt}
        given.setdefault("tools", None)
        given.setdefault("documents", None)
        try:
            return self._bounded(_plain(given))
        except _FAULTS as error:
            raise InvalidRequestError(f"the model's chat template refuses these messages: {error}", "messages") from error

    def _bounded(self, given: Mapping[str, Any]) -> str:
        parts, size = [], 0
        for part in self._template.generate(given):
            size += len(part)
            if size > MAX_RENDERED_CHARACTERS:
                raise ValueError(f"the text is longer than {MAX_RENDERED_CHARACTERS} characters")
            parts.append(part)
        return "".join(parts)


def load(find: Find, name: str = DEFAULT) -> ChatTemplate | None:
    """The template of a model, None where it has none. ``find`` gives the path of a file of the model by its name, or None.

    Raises ``PackageError`` for a file that is not what its name says, or a ``name`` that is not among several templates.
    """
    path = find(TOKENIZER_CONFIG)
    config = {} if path is None else _object(path)
    source = _source(find(TEMPLATE_FILE), config, name)
    if source is None:
        return None
    path = None if TOKENS_ARE_HERE in config else find(TOKENS_FILE)
    tokens = config if path is None else {**config, **_object(path)}
    texts = {key: _token_text(tokens.get(key)) for key in SPECIAL_TOKENS}
    return ChatTemplate(source, {key: text for key, text in texts.items() if text is not None})


def _source(path: Path | None, config: Mapping[str, Any], name: str) -> str | None:
    if name == DEFAULT and path is not None:
        return _read(path)
    found = config.get("chat_template")
    if found is None or isinstance(found, str):
        return found if name == DEFAULT else None
    named = _named(found)
    if named and name not in named:
        raise PackageError(f"the model has no chat template {name!r}; it has {', '.join(sorted(named))}")
    return named.get(name)


def _named(found: object) -> dict[str, str]:
    """Several templates: a list of objects with ``name`` and ``template``."""
    try:
        return {str(entry["name"]): str(entry["template"]) for entry in found}  # type: ignore[attr-defined]
    except (TypeError, KeyError) as error:
        wanted = "a text, or a list of objects with name and template"
        raise PackageError(f"{TOKENIZER_CONFIG}: chat_template must be {wanted}") from error


def _object(path: Path) -> Mapping[str, Any]:
    try:
        found = foreign_json.loads(_read(path))
    except ValueError as error:
        raise PackageError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise PackageError(f"{path} must hold a JSON object")
    return found


def _read(path: Path) -> str:
    """A small file in UTF-8; templates and their settings have no business being larger."""
    limit_bytes = 16 * MAX_TEMPLATE_CHARACTERS
    size = path.stat().st_size
    if size > limit_bytes:
        raise PackageError(f"{path} has {size} bytes; at most {limit_bytes} are read")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise PackageError(f"{path} is not UTF-8: {error}") from error


def _token_text(token: object) -> str | None:
    """A special token's text; older files keep it in an object with ``content``."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _plain(value: Any) -> Any:
    """A copy of JSON's types alone: a template gets no object whose methods could lead further. Raises ``TypeError``."""
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(entry) for entry in value]
    raise TypeError(f"a {type(value).__name__} is not a JSON value")


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox; products and powers cannot be used to fill the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not (abs(left) <= MAX_POWER and abs(right) <= MAX_POWER):
            raise ValueError(f"{left} ** {right}: a template may use powers of numbers up to {MAX_POWER}")
        if operator == "*":
            for text, count in ((left, right), (right, left)):
                if isinstance(text, str | list) and len(text) * max(0, count) > MAX_RENDERED_CHARACTERS:
                    raise ValueError(f"a repetition longer than {MAX_RENDERED_CHARACTERS}")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """``{% generation %}`` marks what a model wrote, for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment(now: Callable[[], datetime]) -> _Sandbox:
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters["tojson"] = _to_json
    for name in ("lipsum", "cycler", "joiner"):
        del environment.globals[name]
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda pattern: now().strftime(pattern)
    return environment


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; Jinja's own filter would escape it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: object) -> None:
    raise jinja2.TemplateError(str(message))
