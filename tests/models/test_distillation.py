"""What the draft is distilled from: the full model's own samples, and its distribution at each of their tokens."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models

torch = pytest.importorskip("torch", reason="the training framework is an extra")

from models.recipes.average import averaged  # noqa: E402
from models.recipes.data import Windows  # noqa: E402
from outrider.training.network import Decoder, Shape  # noqa: E402
from outrider.training.place import Place  # noqa: E402
from outrider.training.samples import NUM_KEPT, PROMPT_ROWS, Drawing, continued  # noqa: E402
from outrider.training.targets import NUM_COMPARED, Targets, disagreement, divergence  # noqa: E402

SMALL = Shape(32, 32, 2, 4, 2, vocab_size=128)
LENGTH = PROMPT_ROWS + 4
HEADING, OTHER_HEADING = 5, 6
PART = 16
HERE = Place(torch.device("cpu"), torch.float32, is_compiled=False)


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    decoder = Decoder(SMALL)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return decoder


@pytest.fixture
def windows(tmp_path):
    vocabulary = {"a": 0, "##": HEADING, "###": OTHER_HEADING}
    Tokenizer(models.WordLevel(vocabulary, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    tokens = np.random.default_rng(0).integers(7, 128, 4000).astype(np.uint16)
    tokens[::100] = HEADING
    tokens[50::100] = OTHER_HEADING
    for kind in ("docs", "code"):
        np.save(tmp_path / f"train-{kind}.npy", tokens)
    return Windows(tmp_path, LENGTH, 0.5, seed=0)


def logits(*shape):
    return torch.from_numpy(np.random.default_rng(len(shape)).standard_normal(shape)).float()


def test_a_continuation_is_what_the_whole_forward_says(decoder):
    prompts = torch.arange(30).reshape(3, 10)
    tokens, targets = continued(decoder, HERE, prompts, 16, 0.0)
    with torch.no_grad():
        whole = Targets.of(decoder(tokens[:, :-1])[:, 9:], NUM_KEPT)
    assert torch.equal(tokens[:, :10], prompts)
    assert torch.equal(tokens[:, 10:], whole.token_ids[..., 0])
    torch.testing.assert_close(targets.log_probs, whole.log_probs, atol=1e-4, rtol=0)


def test_sampled_continuations_differ_and_greedy_ones_do_not(decoder):
    prompts = torch.zeros(2, 4, dtype=torch.int64)
    greedy, _ = continued(decoder, HERE, prompts, 24, 0.0)
    sampled, _ = continued(decoder, HERE, prompts, 24, 2.0)
    assert torch.equal(greedy[0], greedy[1])
    assert not torch.equal(sampled[0], sampled[1])


def test_what_was_drawn_is_not_drawn_again(decoder, windows, tmp_path, capsys):
    drawing = Drawing(PART + 1, LENGTH, PART, tmp_path / "samples")
    first = drawing.of(decoder, HERE, windows, 128)
    assert f"{2 * PART} samples drawn" in capsys.readouterr().out
    again = drawing.of(decoder, HERE, windows, 128)
    assert capsys.readouterr().out == ""
    assert len(again) == 2 * PART
    for name in ("token_ids", "target_ids", "log_probs"):
        assert torch.equal(getattr(again, name), getattr(first, name))


def test_without_a_folder_nothing_is_kept(decoder, windows, tmp_path):
    before = sorted(tmp_path.iterdir())
    Drawing(PART, LENGTH, PART, None).of(decoder, HERE, windows, 128)
    assert sorted(tmp_path.iterdir()) == before


def test_half_of_the_prompts_open_sections(decoder, windows):
    drawn = Drawing(PART, LENGTH, PART, None).of(decoder, HERE, windows, 128)
    assert np.isin(drawn.token_ids[: PART // 2, 0], (HEADING, OTHER_HEADING)).all()


def test_a_batch_of_samples_has_a_target_for_every_token_behind_the_prompt(decoder, windows):
    drawn = Drawing(PART, LENGTH, PART, None).of(decoder, HERE, windows, 128)
    tokens, targets = drawn.batch([3, 1])
    assert tokens.shape == (2, LENGTH - 1)
    assert targets.token_ids.shape == targets.log_probs.shape == (2, LENGTH - PROMPT_ROWS, NUM_KEPT)
    assert torch.equal(targets.token_ids[:, :, 0], drawn.token_ids[[3, 1], PROMPT_ROWS:].long())  # the first part is greedy


def test_with_all_tokens_kept_the_divergence_is_that_of_whole_distributions():
    full, draft = logits(5, 128), logits(5, 128, 1)[..., 0]
    wanted = torch.nn.functional.kl_div(draft.log_softmax(-1), full.log_softmax(-1), log_target=True, reduction="batchmean")
    torch.testing.assert_close(divergence(Targets.of(full, 128), draft), wanted, atol=1e-4, rtol=1e-4)


def test_tokens_left_out_count_as_one():
    full, draft = logits(5, 128), logits(5, 128, 1)[..., 0]
    p, q = full.softmax(-1), draft.softmax(-1)
    ids = p.topk(10, dim=-1).indices
    p, q = (torch.cat((x.gather(-1, ids), 1 - x.gather(-1, ids).sum(-1, keepdim=True)), -1) for x in (p, q))
    torch.testing.assert_close(divergence(Targets.of(full, 10), draft), (p * (p / q).log()).sum(-1).mean())


@pytest.mark.parametrize("temperature", [0.25, 0.8])
def test_the_disagreement_is_the_share_of_races_on_one_noise_that_differ(temperature: float):
    full = 4 * logits(1, 128)
    draft = full + logits(1, 128, 1)[..., 0]
    noise = torch.empty(100_000, 128).exponential_(generator=torch.Generator().manual_seed(2)).log()
    choices = [(noise - x / temperature).argmin(-1) for x in (full, draft)]
    share = (choices[0] != choices[1]).float().mean()
    assert float(disagreement(Targets.of(full, 128), draft, temperature)) == pytest.approx(float(share), abs=0.01)


def test_a_draft_that_is_the_full_model_has_nothing_to_learn():
    full = logits(4, 128)
    targets = Targets.of(full, NUM_KEPT)
    assert divergence(targets, full) == pytest.approx(0, abs=1e-6)
    few = full[:, :NUM_COMPARED]
    assert disagreement(Targets.of(few, NUM_COMPARED), few, 0.8) == pytest.approx(0, abs=1e-4)


def test_an_average_lies_between_both_models_weights():
    old, new = {"w": torch.tensor([0.0, 2.0], dtype=torch.float16)}, {"w": torch.tensor([1.0, 2.0])}
    torch.testing.assert_close(averaged(old, new, 0.4), {"w": torch.tensor([0.4, 2.0])})


def test_weights_of_different_models_are_not_averaged():
    with pytest.raises(SystemExit, match="different shapes"):
        averaged({"w": torch.zeros(2)}, {"w": torch.zeros(3)}, 0.5)
