"""The prompts that come with the pair."""

import pytest

from models.recipes.corpus import whole_words
from speculation.engines.package import load_pair


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
