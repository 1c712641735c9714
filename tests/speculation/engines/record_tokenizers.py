"""Records what the `transformers` library makes of the strings and tokenizers of `tokenizer_families.py`, as digests.

`python -m tests.speculation.engines.record_tokenizers` writes `tokenizer_families.json` (needs transformers).
"""

import json
import tempfile
from importlib import metadata
from pathlib import Path

from speculation.engines import chat
from speculation.engines.tokenizer_files import load_tokenizer
from speculation.errors import InvalidRequestError
from speculation.text import text_stream, token_bytes
from tests.speculation.engines.tokenizer_families import (
    FAMILIES,
    IN_BYTES,
    conversations,
    digest_of,
    strings,
    token_sequences,
    write_folder,
)

RECORDED = Path(__file__).with_name("tokenizer_families.json")
DATE = {"date_string": "03 Feb 2026"}


class Ours:
    """A family's tokenizer as the two services use it."""

    def __init__(self, folder: Path):
        self.tokenizer = load_tokenizer(folder / "tokenizer.json", 2**16, "the test")
        self.table = token_bytes(self.tokenizer.to_str())
        self.template = chat.load(lambda name: folder / name if (folder / name).is_file() else None)

    def ids(self, text):
        return self.tokenizer.encode(text).ids

    def text(self, token_ids):
        """As a reader gets it, a token at a time."""
        stream = text_stream(self.table or self.tokenizer.decode)
        return "".join(stream.push([token_id]) for token_id in token_ids) + stream.finish()

    def talk(self, messages, **variables):
        try:
            return self.template.render(messages, **variables)
        except InvalidRequestError:
            return None

    def talk_ids(self, messages, **variables):
        text = self.talk(messages, **variables)
        return text if text is None else self.tokenizer.encode(text, add_special_tokens=False).ids


class Theirs:
    """The same by `transformers`."""

    def __init__(self, folder: Path):
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def ids(self, text):
        return self.tokenizer(text)["input_ids"]

    def text(self, token_ids):
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)

    def talk(self, messages, **variables):
        return self._applied(messages, tokenize=False, **variables)

    def talk_ids(self, messages, **variables):
        found = self._applied(messages, tokenize=True, return_dict=True, **variables)
        return found if found is None else found["input_ids"]

    def _applied(self, messages, **variables):
        from jinja2 import TemplateError

        try:
            return self.tokenizer.apply_chat_template(messages, **{"add_generation_prompt": True, **variables})
        except TemplateError:
            return None


def whole(family, ours, sequences):
    """Those of the sequences that end no character early, where the family's own decoder would spoil its neighbours."""
    return sequences if family in IN_BYTES else [ids for ids in sequences if is_whole(ours, ids)]


def is_whole(ours, token_ids):
    try:
        b"".join(ours.table.of.get(token_id, b"") for token_id in token_ids).decode()
    except UnicodeDecodeError:
        return False
    return True


def outcomes(who, all_ids, sequences, **variables):
    """By kind, a list of what becomes of every input."""
    return {
        "ids": [who.ids(text) for text in strings()],
        "texts": [who.text(ids) for ids in all_ids],
        "broken texts": [who.text(ids) for ids in sequences],
        "talks": [who.talk(messages, **variables) for messages in conversations()],
        "talks without a prompt": [
            who.talk(messages, add_generation_prompt=False, **variables) for messages in conversations()[:100]
        ],
        "talks' ids": [who.talk_ids(messages, **variables) for messages in conversations()],
    }


def inputs_of(family, ours):
    """Token ids of all strings, and sequences that were broken."""
    all_ids = [ours.ids(text) for text in strings()]
    return all_ids, whole(family, ours, token_sequences(all_ids, ours.tokenizer.get_vocab_size()))


def main():
    recorded = {name: metadata.version(name) for name in ("tokenizers", "transformers")}
    recorded["strings"] = digest_of(strings())
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as name:
            folder = write_folder(Path(name), family)
            found = outcomes(Theirs(folder), *inputs_of(family, Ours(folder)), **DATE)
        recorded[family] = {kind: digest_of(values) for kind, values in found.items()}
    RECORDED.write_text(json.dumps(recorded, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
