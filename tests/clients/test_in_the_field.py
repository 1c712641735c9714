"""Every client that is installed, against the bundled pair: shaped and unshaped, and with the verifier's process killed."""

from __future__ import annotations

import functools
import re

import pytest

from tests.clients.field import NUM_LONG, NUM_TOKENS, PROMPT, SEED, SHAPED, UNSHAPED, Truth, field_of, reading
from tests.clients.readers import MODEL, OF_OBJECTS, installed

openai = pytest.importorskip("openai", reason="the extra outrider[clients]")
# Others' warnings are not ours to mend.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]

ASKED = {"prompt": PROMPT, "seed": SEED}
WHOLE = {"openai_whole", "instructor_object"}


@functools.cache
def truth():
    return Truth()


def check_logprobs(url):
    """Those that the client reads are the model's own, computed by other means from its own logits."""
    asked = {"model": MODEL, **ASKED, "max_tokens": NUM_TOKENS, "temperature": 0.8, "logprobs": 5}
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        (choice,) = client.completions.create(**asked).choices
    assert choice.logprobs.token_logprobs == [one.logprob for one in truth().likelihoods(choice.text, 5)]
    assert "".join(choice.logprobs.tokens) == choice.text


@pytest.mark.parametrize("shape", [UNSHAPED, SHAPED])
def test_every_client_reads_the_full_models_text_and_none_takes_a_killed_verifier_for_an_end(shape, tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))  # it keeps a database
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it calls home when it is imported
    readers, text = installed(), truth().text
    stop = text[40:44]
    with field_of(shape) as field:
        with reading(readers, field.url, **ASKED, max_tokens=NUM_TOKENS, stop=stop) as whole:
            pass
        assert {one.name: one.error for one in whole} == dict.fromkeys(readers)
        assert {one.name: one.text for one in whole} == dict.fromkeys(readers, text[: text.index(stop)])

        check_logprobs(field.url)
        with reading(readers | installed(OF_OBJECTS), field.url, **ASKED, max_tokens=NUM_LONG) as cut:
            for one in cut:
                assert one.name in WHOLE or one.has_begun.wait(30), f"{one.name} read nothing"
            field.kill()
        assert {one.name: one.error for one in cut if one.error is None} == {}, "taken for a whole answer"
        for one in cut:
            assert re.search("unavailable|no verifier", str(one.error)), (one.name, one.error)
            assert (one.name in WHOLE) == (one.text == ""), (one.name, one.error)
            assert text.startswith(one.text)
            assert len(one.text) < len(text)
