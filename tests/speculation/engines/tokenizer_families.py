"""Small tokenizers in the forms that families of models publish, and a thousand strings that are hard on them.

Both are worked out the same everywhere: nothing is trained, and of Python's randomness only ``random()`` is used, whose
numbers are promised to stay.
"""

from __future__ import annotations

import hashlib
import json
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

NUM_STRINGS = 1000
SEED = 20

GPT2_WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_WORDS = QWEN_WORDS.replace(r"\p{N}|", r"\p{N}{1,3}|")

WORDS = (
    " the", " of", " and", "ing", " hello", "Hello", " world", "don't", " 2026", "12345", "\n\n", "    ", " ,", "...", "==",
    "über", "naïve", "你好", "世界", "日本語", "テスト", "안녕", "שלום", "مرحبا", "नमस्ते", "Привет", "👍", "👍🏽",
    "👨‍👩‍👧", "🇩🇪", "🏳️‍🌈", "e\u0301", "a\u0308\u0323", "\u200b", "\ufeff", "\ufffd", "\u202e",
)  # fmt: skip
"""What the tokenizers have tokens for, with every beginning of it: most other texts fall apart into bytes."""

EMOJI = ("🙂", "👍🏿", "👩🏽‍🚀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇫🇷", "🇯🇵", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "❤️", "☺", "1️⃣", "🏽", "\u200d", "\ufe0f", "🇩")
SCRIPTS = (
    ("的", "一", "是", "你好", "世界", "漢字", "ｶﾅ", "カ\u3099", "가", "\u1100\u1161", "々", "𠮷", "，", "。"),
    ("שלום", "עולם", "مرحبا", "بالعالم", "لا", "\u200f", "\u202b", "\u202c", "\u2067", "\u2069", "١٢٣", "بِسْمِ"),
    ("e\u0301", "é", "n\u0303", "a\u0308\u0323", "ạ\u0308", "Z\u0351\u036b\u0343", "क्षि", "ก็", "ﬁ", "Å", "\u212b", "ß"),
    ("\x00", "\x01", "\x07", "\x08", "\t", "\x1b[31m", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "\r", "\r\n", "\u3000"),
    ("\ufffd", "\ufffd\ufffd", "\uffff", "\U0010ffff", "\ufdd0", "a\ufffdb"),
)  # fmt: skip
PLAIN = (
    "the",
    "of",
    "Hello",
    "world",
    "don't",
    "I'LL",
    "x",
    "3.14",
    "12345678",
    "foo_bar",
    "<b>",
    "&amp;",
    "{{ 7 }}",
    "==",
    "?!",
    ".",
)
SPACES = ("", "", " ", " ", "  ", "\n", "\n\n", "\t", "    ")
SPELLED = ("<s>", "</s>", "<|end|>", "<|im_start|>", "<0xE2>", "▁", "[INST]", "<unk>", "day token", "Ġ")
"""Texts that are tokens in some of the tokenizers, or look so from inside."""


def _picked(rng: random.Random, of):
    return of[int(rng.random() * len(of))]


def strings() -> list[str]:
    """A thousand texts: emoji, scripts, marks, controls, spellings of tokens, and what is left of bytes that were cut."""
    rng = random.Random(SEED)
    return [_string(rng, number) for number in range(NUM_STRINGS)]


def _string(rng: random.Random, number: int) -> str:
    kinds = (PLAIN, EMOJI, *SCRIPTS, SPELLED)
    parts = []
    for _ in range(1 + int(rng.random() * 12)):
        # Every kind has strings that are mostly of it.
        kind = kinds[number % len(kinds)] if rng.random() < 0.6 else _picked(rng, kinds)
        parts += [_picked(rng, kind), _picked(rng, SPACES)]
    text = "".join(parts)
    return _damaged(rng, text) if number % 5 == 0 else text


def _damaged(rng: random.Random, text: str) -> str:
    """The text as it comes from bytes of which some were lost or exchanged, read as every reader here reads them."""
    raw = bytearray(text.encode())
    for _ in range(1 + int(rng.random() * 3)):
        place = int(rng.random() * len(raw))
        if rng.random() < 0.5:
            raw[place] = int(rng.random() * 256)
        elif len(raw) > 1:
            del raw[place]
    return raw.decode("utf-8", "replace")


def token_sequences(encoded: list[list[int]], size: int) -> list[list[int]]:
    """A thousand sequences of tokens as a model may write them: those of texts, of which some were lost, exchanged for others
    or joined to another text's, so that characters break anywhere."""
    rng = random.Random(SEED + 1)
    sequences = []
    for number, ids in enumerate(encoded):
        broken = [*ids[int(rng.random() * 3) :], *(_picked(rng, encoded)[: int(rng.random() * 4)])]
        for _ in range(number % 4):
            if broken:
                place = int(rng.random() * len(broken))
                broken[place : place + int(rng.random() * 3)] = [int(rng.random() * size)]
        sequences.append(broken)
    return sequences


def _letters_of_bytes() -> list[str]:
    """GPT-2's letter of each byte, in the order of the bytes."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _grown(words: list[list[str]], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Merges that make each word out of its letters from left to right; ``vocabulary`` gains their results."""
    merges = []
    for first, *rest in words:
        before = first
        for letter in rest:
            if before + letter not in vocabulary:
                vocabulary[before + letter] = len(vocabulary)
                merges.append((before, letter))
            before += letter
    return merges


def _byte_level(words: str, special: tuple[str, ...], added: tuple[str, ...] = (), **options) -> Tokenizer:
    letters = _letters_of_bytes()
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    merges = _grown([[letters[byte] for byte in word.encode()] for word in WORDS], vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, **options))
    split = pre_tokenizers.Split(Regex(words), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(list(special))
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in added])
    return tokenizer


def _pieces(special: tuple[str, ...], prefix: str = "") -> Tokenizer:
    """BPE over characters with a token a byte for all others, spaces spelled as SentencePiece does."""
    vocabulary = {token: number for number, token in enumerate((*special, *(f"<0x{byte:02X}>" for byte in range(256))))}
    known = sorted({letter for word in (prefix, *WORDS) for letter in word.replace(" ", "▁") if letter not in "👍日本テ\ufeff"})
    vocabulary |= {letter: len(vocabulary) + number for number, letter in enumerate(known)}
    words = [list(word.replace(" ", "▁")) for word in WORDS if all(letter in known for letter in word.replace(" ", "▁"))]
    merges = _grown(words, vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens([text for text in special if text not in ("<0x0A>",)])
    return tokenizer


def _with_beginning(tokenizer: Tokenizer, beginning: str) -> Tokenizer:
    """As models are made that want every text to begin with a token."""
    one = f"{beginning} $A"
    pair = f"{beginning} $A {beginning} $B:1"
    tokenizer.post_processor = processors.TemplateProcessing(one, pair, [(beginning, tokenizer.token_to_id(beginning))])
    return tokenizer


def _gpt2() -> Tokenizer:
    return _byte_level(GPT2_WORDS, ("<|end|>",))


def _qwen() -> Tokenizer:
    tokenizer = _byte_level(QWEN_WORDS, ("<|end|>", "<|im_start|>", "<|im_end|>"), ("day token", "<tool_call>", "▁"))
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _llama3() -> Tokenizer:
    tokenizer = _byte_level(LLAMA3_WORDS, ("<s>", "</s>", "<|end|>"), ignore_merges=True)
    template = _with_beginning(tokenizer, "<s>").post_processor
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def _llama2() -> Tokenizer:
    tokenizer = _with_beginning(_pieces(("<unk>", "<s>", "</s>")), "<s>")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _mistral() -> Tokenizer:
    tokenizer = _with_beginning(_pieces(("<unk>", "<s>", "</s>", "[INST]", "[/INST]")), "<s>")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_tokens(["day token"])
    return tokenizer


def _gemma() -> Tokenizer:
    tokenizer = _with_beginning(_pieces(("<unk>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>")), "<s>")
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


FAMILIES = {"gpt2": _gpt2, "qwen": _qwen, "llama3": _llama3, "llama2": _llama2, "mistral": _mistral, "gemma": _gemma}
IN_BYTES = ("gpt2", "qwen", "llama3")
IN_PIECES = ("llama2", "mistral", "gemma")

CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HEADERS = """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%Y") %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\nToday Date: " + date_string + "\n\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
INSTRUCTIONS = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("roles must alternate user/assistant") }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"]|string|trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""
TURNS = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}
{% set talk = messages[1:] %}{% else %}{% set first = '' %}{% set talk = messages %}{% endif %}
{% for message in talk %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') + message['content'] | trim + '<end_of_turn>\n' }}
{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}
"""
JSON_LINES = """{%- for message in messages %}
{{ message | tojson }}
{{ {"n": loop.index, "text": message.content | upper} | tojson(indent=1, sort_keys=true) }}
{{ message.content | length }}{{ message.content.split(' ') | tojson(ensure_ascii=true) }}{{ message.content[::-1] }}
{%- endfor %}
"""
TEMPLATES = {
    "gpt2": JSON_LINES,
    "qwen": CHATML,
    "llama3": HEADERS,
    "llama2": INSTRUCTIONS,
    "mistral": INSTRUCTIONS,
    "gemma": TURNS,
}


def conversations() -> list[list[dict[str, str]]]:
    """Of every string: as a system's, a user's and an assistant's, one to three turns each; some begin with the assistant."""
    texts = strings()
    talks = []
    for number, text in enumerate(texts):
        other = texts[number - 1]
        talk = [{"role": "user", "content": text}, {"role": "assistant", "content": other}, {"role": "user", "content": other}]
        first = [{"role": "system", "content": other}] if number % 3 == 0 else []
        talks.append(first + talk[number % 14 == 7 : 1 + 2 * (number % 2)])
    return talks


def write_folder(path, family: str):
    """``tokenizer.json`` and ``tokenizer_config.json`` of a family, as its models come."""
    tokenizer = FAMILIES[family]()
    tokenizer.save(str(path / "tokenizer.json"))
    has_beginning = tokenizer.token_to_id("<s>") is not None
    end = "</s>" if has_beginning else "<|end|>"
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "chat_template": TEMPLATES[family],
        "clean_up_tokenization_spaces": family == "llama3",
        "model_max_length": 8192,
    }
    if has_beginning:
        config["bos_token"] = {"__type": "AddedToken", "content": "<s>", "special": True}
    (path / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return path


def digest_of(values: list) -> str:
    """Of texts or of lists of token ids."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
