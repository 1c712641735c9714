"""The prompts that come with the pair, and what its page says of making it again."""

import re

import pytest

from models.recipes.corpus import whole_words
from speculation.engines.package import load_pair
from tests.support.code_blocks import ROOT


@pytest.mark.parametrize(
    ("cut", "text"), [("one two thr", "one two"), ("one\n\n   two t", "one\n\n   two"), ("one two ", "one")]
)
def test_a_prompt_ends_with_a_whole_word(cut, text):
    assert whole_words(cut) == text


def test_every_prompt_of_the_pair_has_a_title_and_its_source():
    for prompt in load_pair().prompts:
        assert prompt["title"]
        assert "#" in prompt["source"]
        assert prompt["text"] == prompt["text"].rstrip()


def test_the_page_makes_the_next_release_and_not_the_last_one_again():
    text = (ROOT / "models/README.md").read_text("utf-8")
    (version,) = re.findall(r"^make pair ARGS=\"--version (\d+)\"", text, re.MULTILINE)
    assert int(version) == load_pair().version + 1
