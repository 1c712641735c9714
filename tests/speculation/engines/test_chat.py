"""Chat templates: conversations as the models' makers write them, and templates that mean harm."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from speculation.engines import chat
from speculation.engines.chat import ChatTemplate
from speculation.errors import InvalidRequestError, PackageError

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HEADERS = """{{- bos_token }}
{%- set ns = namespace(system='') %}
{%- if messages[0]['role'] == 'system' %}
    {%- set ns.system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + strftime_now('%d %b %Y') }}
{{- '\n\n' + ns.system + '<|eot_id|>' }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}
"""
INSTRUCTIONS = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
TURNS = (
    "{{ bos_token }}{% for message in messages %}{% set role = 'model' if message.role == 'assistant' else message.role %}"
    "<start_of_turn>{{ role }}\n{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
TOOLS = """{%- if tools %}
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}

</tools>
{% endif %}
{%- for message in messages %}
{%- if message.content is not string %}{% continue %}{% endif %}
{%- if loop.index > 5 %}{% break %}{% endif %}
{%- if message.role == 'assistant' %}{% generation %}{{ message.content }}{% endgeneration %}
{%- else %}{{ '<' ~ message.role ~ '>' }}{{ message.content }}
{%- endif %}
{%- endfor %}
"""
TEMPLATES = {"chatml": CHATML, "headers": HEADERS, "instructions": INSTRUCTIONS, "turns": TURNS, "tools": TOOLS}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
NOON = datetime(2026, 2, 3, 12)
TALK = [
    {"role": "user", "content": " Grüß <b>Gott</b> & 你好 🙂 "},
    {"role": "assistant", "content": "{{ 7 * 7 }}"},
    {"role": "user", "content": "line\nbreak"},
]
SYSTEM = {"role": "system", "content": " be brief "}


def made(source):
    return ChatTemplate(source, SPECIAL, now=lambda: NOON)


@pytest.mark.parametrize(
    ("name", "messages", "wanted"),
    [
        (
            "chatml",
            TALK,
            "<|im_start|>user\n Grüß <b>Gott</b> & 你好 🙂 <|im_end|>\n<|im_start|>assistant\n{{ 7 * 7 }}<|im_end|>\n"
            "<|im_start|>user\nline\nbreak<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "headers",
            [SYSTEM, TALK[0]],
            "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 03 Feb 2026\n\nbe brief<|eot_id|><|start_header_id|>"
            "user<|end_header_id|>\n\nGrüß <b>Gott</b> & 你好 🙂<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("instructions", TALK, "<s>[INST]  Grüß <b>Gott</b> & 你好 🙂  [/INST]{{ 7 * 7 }}</s>[INST] line\nbreak [/INST]"),
        (
            "turns",
            TALK[1:],
            "<s><start_of_turn>model\n{{ 7 * 7 }}<end_of_turn>\n<start_of_turn>user\nline\nbreak<end_of_turn>\n"
            "<start_of_turn>model\n",
        ),
        (
            "tools",
            [*TALK, {"role": "tool", "content": [{"type": "text"}]}],
            "<user> Grüß <b>Gott</b> & 你好 🙂 {{ 7 * 7 }}<user>line\nbreak",
        ),
    ],
)
def test_a_conversation_is_written_as_the_template_says(name, messages, wanted):
    assert made(TEMPLATES[name]).render(messages) == wanted


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("name", ["chatml", "instructions", "turns", "tools"])
def test_the_text_is_that_of_transformers(name, add_generation_prompt):
    utils = pytest.importorskip("transformers.utils.chat_template_utils", reason="transformers is not installed")
    tools = [{"type": "function", "function": {"name": "f", "description": "é <b>"}}]
    (theirs,), _ = utils.render_jinja_template(
        [TALK], tools, chat_template=TEMPLATES[name], add_generation_prompt=add_generation_prompt, **SPECIAL
    )
    assert made(TEMPLATES[name]).render(TALK, add_generation_prompt=add_generation_prompt, tools=tools) == theirs


def test_what_a_template_knows_besides_can_be_said():
    assert made("{{ enable_thinking }}{{ tools is none }}").render(TALK, enable_thinking=False) == "FalseTrue"


def test_a_template_that_refuses_says_why():
    with pytest.raises(InvalidRequestError, match="roles must alternate") as raised:
        made(INSTRUCTIONS).render(TALK[1:])
    assert raised.value.parameter == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os }}",
        "{{ 'a' * 100000000 }}",
        "{{ 100000000 * 'a' }}",
        "{{ [0] * 100000000 }}",
        "{{ 9 ** 9999 ** 9999 }}",
        "{% for i in range(1000000000) %}{{ i }}{% endfor %}",
        "{% for i in range(90000) %}{% for j in range(90000) %}abcdefgh{% endfor %}{% endfor %}",
        "{% macro again(n) %}{{ again(n) }}{% endmacro %}{{ again(1) }}",
        "{{ messages[99].role }}",
        "{{ 1 / 0 }}",
        "{{ lipsum() }}",
        "{{ messages[0].content + 1 }}",
        "{{ nothing() }}",
        "{{ messages[0].content | dictsort }}",
    ],
)
def test_a_template_that_means_harm_or_fails_is_a_refusal(source):
    with pytest.raises(InvalidRequestError, match="chat template"):
        made(source).render(TALK)


@pytest.mark.parametrize(
    "inside", ["raise_exception.__globals__", "strftime_now.__closure__", "messages.__class__", "self.__dict__"]
)
def test_the_inside_of_an_object_is_nothing_to_a_template(inside):
    assert made("{{ " + inside + " }}").render(TALK) == ""
    with pytest.raises(InvalidRequestError, match="chat template"):
        made("{{ " + inside + ".keys }}").render(TALK)


def test_a_template_sees_no_object_of_ours():
    class Message(dict):
        def secret(self):
            return "secret"

    with pytest.raises(InvalidRequestError, match="chat template"):
        made("{{ messages[0].secret() }}").render([Message(role="user", content="x")])
    with pytest.raises(InvalidRequestError, match="not a JSON value"):
        made(CHATML).render([{"role": "user", "content": object()}])


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{",
        "{% endgeneration %}",
        "{% generation %}",
        "x" * 1_000_001,
        "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
        "{% if a %}" * 150 + "{% endif %}" * 150,
        "{{ " + "9" * 5000 + " }}",
    ],
    ids=lambda source: source[:20],
)
def test_what_is_no_template_is_refused_when_it_is_loaded(source):
    with pytest.raises(PackageError, match="chat template"):
        ChatTemplate(source)


def folder_with(path, config=None, template=None):
    if config is not None:
        (path / chat.TOKENIZER_CONFIG).write_text(config if isinstance(config, str) else json.dumps(config), "utf-8")
    if template is not None:
        (path / chat.TEMPLATE_FILE).write_bytes(template)
    return lambda name: path / name if (path / name).is_file() else None


@pytest.mark.parametrize("config", [None, {}, {"chat_template": None}, {"bos_token": "<s>"}])
def test_a_model_without_a_template_has_none(tmp_path, config):
    assert chat.load(folder_with(tmp_path, config)) is None


def test_the_template_of_a_folder_knows_its_special_tokens(tmp_path):
    config = {
        "chat_template": "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}",
        "bos_token": {"content": "<s>"},
        "eos_token": "</s>",
    }
    assert chat.load(folder_with(tmp_path, config)).render(TALK) == "<s>|</s>|"


@pytest.mark.parametrize(
    ("config", "wanted"),
    [({}, "<s>|</s>|"), ({"bos_token": "<x>", "pad_token": "<p>"}, "<s>|</s>|<p>"), ({"added_tokens_decoder": {}}, "||")],
)
def test_special_tokens_may_stand_in_a_file_of_their_own(tmp_path, config, wanted):
    """As older software wrote them. Where ``added_tokens_decoder`` is, ``transformers`` reads that file no more."""
    tokens = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "additional_special_tokens": ["<y>"]}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(tokens))
    template = {"chat_template": "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}"}
    assert chat.load(folder_with(tmp_path, template | config)).render(TALK) == wanted


def test_a_file_of_its_own_goes_before_the_entry(tmp_path):
    folder = folder_with(tmp_path, {"chat_template": "entry"}, "file é".encode())
    assert chat.load(folder).render(TALK) == "file é"


def test_of_several_templates_one_is_asked_for(tmp_path):
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    folder = folder_with(tmp_path, {"chat_template": named})
    assert chat.load(folder).render(TALK) == "plain"
    assert chat.load(folder, "tool_use").render(TALK) == "tools"
    with pytest.raises(PackageError, match="the model has no chat template 'rag'; it has default, tool_use"):
        chat.load(folder, "rag")


@pytest.mark.parametrize(
    ("config", "template", "wanted"),
    [
        ("{", None, "is not JSON"),
        ("[" * 100_000, None, "is not JSON: nested more than 64 deep"),
        ("[]", None, "must hold a JSON object"),
        ({"chat_template": 5}, None, "a text, or a list of objects"),
        ({"chat_template": ["x"]}, None, "a text, or a list of objects"),
        ({"chat_template": [{"name": "x"}]}, None, "a text, or a list of objects"),
        (None, b"\xff\xfe", "is not UTF-8"),
        (None, b" " * 16_000_001, "at most 16000000 are read"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, config, template, wanted):
    with pytest.raises(PackageError, match=wanted):
        chat.load(folder_with(tmp_path, config, template))
