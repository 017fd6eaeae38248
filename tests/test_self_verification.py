"""Self-verification: what a model answers about things weighs how it names them."""

import math

import pytest
import torch

from hkd_core.common.errors import UserError
from hkd_core.inference import generate
from hkd_core.inference.generation import tidy
from hkd_core.inference.scoring import answer_logits
from hkd_core.models.vlm import encode_all
from hkd_core.seed.lessons import verified_targets
from hkd_core.seed.self_verification import (
    ALREADY_NAMED,
    affirmed,
    evidence,
    name_starts,
    named_before,
    reweight,
    self_verifying,
)
from hkd_core.training.examples import TrainingSet
from hkd_core.world.objects import OBJECTS
from hkd_core.world.tasks import CAPTION_PROMPT, example
from hkd_core.world.wording import WORDING

NAMES = ("dog", "egg", "car")


@pytest.fixture
def features(vlm, pictures):
    return encode_all({"": vlm}, list(pictures.values())[:3])[""]


def test_a_name_begins_with_the_token_that_follows_its_article_in_a_caption(vlm):
    caption = vlm.suffix("x", "The image shows a dog, an egg.")
    dog, egg = name_starts(vlm, ("dog", "egg")).tolist()
    assert dog in caption and egg in caption and dog != egg
    assert len(set(name_starts(vlm, OBJECTS).tolist())) == len(OBJECTS)


def test_names_are_affirmed_as_each_question_alone_is_answered(vlm, features):
    together = affirmed(vlm, NAMES, features, WORDING, shift=0.7)
    yes, no = (vlm.suffix("x", word)[-1] for word in ("Yes", "No"))
    for n, picture in enumerate(features):
        for k, prompt in enumerate(
            ("Is there a dog in the image?", "Is there an egg in the image?", "Is there a car in the image?")
        ):
            logits = answer_logits(vlm, [prompt], [picture])[0].double()
            by_hand = -math.log1p(math.exp(-float(logits[yes] - logits[no] - 0.7)))
            assert float(together[n, k]) == pytest.approx(by_hand, abs=1e-4)


def test_evidence_stands_at_the_names_alone_and_of_names_that_begin_alike_the_most_affirmed_counts():
    told = torch.tensor([[-0.1, -2.0, -3.0]])
    found = evidence(told, torch.tensor([5, 2, 2]), 7, gamma=2.0)
    assert found.tolist() == [[0, 0, pytest.approx(-4.0), 0, 0, pytest.approx(-0.2), 0]]
    assert not evidence(told, torch.tensor([5, 2, 2]), 7, gamma=0.0).any()
    with pytest.raises(UserError, match="gamma: expected 0 or more, got -1"):
        evidence(told, torch.tensor([5, 2, 2]), 7, gamma=-1)


def test_only_names_count_as_named_and_only_from_the_next_word_on():
    tokens, starts = [4, 2, 3, 2, 5], [2, 5]
    found = named_before(torch.tensor(tokens), torch.tensor(starts), 6)
    by_hand = [[t in starts and t in tokens[:place] for t in range(6)] for place in range(5)]
    assert found.tolist() == by_hand


def test_a_verified_caption_equals_one_that_reads_everything_anew_for_every_word(vlm, features):
    starts, vocabulary = name_starts(vlm, OBJECTS), vlm.head.shape[0]
    # Evidence that differs from picture to picture, so that none can be taken for another's.
    told = 10 * torch.rand(3, len(starts), generator=torch.Generator().manual_seed(0))
    weights = evidence(told, starts, vocabulary, gamma=1.0)
    how = self_verifying(weights, starts, cutoff=1e-4)
    # Batches of two: each batch's processor must take its own evidence.
    texts = generate(vlm, [CAPTION_PROMPT] * 3, features, max_new_tokens=8, processor=how, batch_size=2)
    for n, picture in enumerate(features):
        suffix, said = vlm.suffix(CAPTION_PROMPT), set()
        for _ in range(8):
            with torch.no_grad():
                states = vlm.hidden(vlm.inputs([picture], [suffix])).last_hidden_state
            logits = (states[0, -1] @ vlm.head.T).double()
            allowed = logits >= logits.max() + math.log(1e-4)
            for k in range(vocabulary):
                logits[k] += ALREADY_NAMED if k in said else float(weights[n, k])
            chosen = int(torch.where(allowed, logits, -torch.inf).argmax())
            suffix = [*suffix, chosen]
            said |= {chosen} & set(starts.tolist())
            if chosen == vlm.tokenizer.eos_token_id:
                break
        again = vlm.tokenizer.decode(suffix[len(vlm.suffix(CAPTION_PROMPT)) :], skip_special_tokens=True)
        assert texts[n] == tidy(again)


def test_without_evidence_and_with_every_token_plausible_it_is_plain_decoding(vlm, features):
    plain = generate(vlm, [CAPTION_PROMPT] * 3, features, max_new_tokens=8)
    nothing = self_verifying(torch.zeros(3, vlm.head.shape[0]), torch.tensor([], dtype=torch.long), cutoff=0.0)
    assert generate(vlm, [CAPTION_PROMPT] * 3, features, max_new_tokens=8, processor=nothing) == plain


def test_targets_of_captions_are_reweighted_one_word_at_a_time(vlm, scenes, features):
    shown = {scenes[0].image_id: features[0]}
    data = TrainingSet(
        {"student": vlm}, [example(scenes[0], "caption", CAPTION_PROMPT, "The image shows a dog, a dog.")], {"student": shown}
    )
    starts, vocabulary = name_starts(vlm, OBJECTS), vlm.head.shape[0]
    weights = evidence(affirmed(vlm, OBJECTS, features[:1], WORDING), starts, vocabulary, gamma=2.0)
    (target,) = verified_targets(vlm, data, {scenes[0].image_id: weights[0]}, starts, cutoff=0.0, epsilon=1e-6)
    suffix, dog = data.suffixes[0], int(name_starts(vlm, ("dog",))[0])
    first = len(suffix) - len(target)
    for place in range(len(target)):
        with torch.no_grad():
            clean = vlm.hidden(vlm.inputs([features[0]], [suffix[: first + place]])).last_hidden_state[0, -1:] @ vlm.head.T
        said = torch.zeros(1, vocabulary, dtype=torch.bool)
        said[0, dog] = dog in suffix[first : first + place]
        assert torch.allclose(target[place].exp(), reweight(clean, weights, said, cutoff=0.0).softmax(-1)[0], atol=1e-4)
    assert float(target[-1][dog]) < -12 < float(target[0][dog])
