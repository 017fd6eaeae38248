"""Scoring equals asking one by one; purging with nothing to purge changes nothing; shifted mappings come back."""

import math

import numpy as np
import pytest
import torch
from conftest import tiny_qwen, tiny_vlm
from PIL import Image

from hkd_core.common.errors import UserError
from hkd_core.hkd.mapping_shift import average, content_classes, fit_prior, shifted
from hkd_core.inference import Features, contrastive, generate, generation, score_choices, shared_prefix, with_ids
from hkd_core.inference.contrast import hallucination_score, isolate, least, mixture, plausible, purify
from hkd_core.inference.distortion import blur, distortion
from hkd_core.inference.generation import tidy
from hkd_core.inference.scoring import answer_logits, prior_logits
from hkd_core.inference.views import distorted_views, gist, gists, nearest, others
from hkd_core.models.vlm import encode_all
from hkd_core.world.wording import WORDING


@pytest.fixture
def logits():
    return torch.randn(2, 20, 12, generator=torch.Generator().manual_seed(0))


def with_images(examples, pictures):
    return [row | {"image": pictures[row["image_id"]]} for row in examples]


def test_scores_equal_the_sum_of_token_log_probabilities_one_by_one(vlm, examples, pictures):
    some = with_images(examples[:8], pictures)
    for row, scores in zip(some, score_choices(vlm, some, batch_size=3), strict=True):
        (picture,) = encode_all({"": vlm}, [row["image"]])[""]
        for choice, score in zip(row["choices"], scores, strict=True):
            ids = vlm.suffix(row["prompt"], choice)
            answer = len(ids) - len(vlm.suffix(row["prompt"]))
            with torch.no_grad():
                hidden = vlm.hidden(vlm.inputs([picture], [ids])).last_hidden_state[0]
            logp = (hidden @ vlm.head.T).log_softmax(-1)
            expected = sum(float(logp[-answer - 1 + k, ids[-answer + k]]) for k in range(answer))
            assert score == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("room", [0, 20, 256])
def test_a_picture_is_read_once_for_however_many_questions_share_its_row(vlm, pictures, room, monkeypatch):
    monkeypatch.setattr(shared_prefix, "PACKED", room)
    names = ["dog", "red cup", "blue car", "cow", "boat"]
    asked = [
        {
            "image_id": k,
            "image": pictures[k],
            "prompt": f"Is there a {name} in the image?",
            "choices": ["Yes", "No", "Not Verifiable"],
        }
        for n, k in enumerate(list(pictures)[:3])
        for name in names[: n + 2]
    ]
    for row, together in zip(asked, score_choices(vlm, asked), strict=True):
        assert together == pytest.approx(score_choices(vlm, [row])[0], abs=1e-4)


def test_a_picture_may_be_an_array_an_image_or_a_file(vlm, examples, pictures, tmp_path):
    array = next(iter(pictures.values()))
    Image.fromarray(array).save(tmp_path / "one.png")
    ways = (array, Image.fromarray(array), tmp_path / "one.png", str(tmp_path / "one.png"))
    found = [score_choices(vlm, [examples[0] | {"image": way}]) for way in ways]
    assert found == [found[0]] * len(ways)


@pytest.mark.parametrize("name", ["missing.png", "text.png", "https://example.org/a.png"])
def test_a_file_that_is_no_picture_is_named_in_a_line(vlm, examples, tmp_path, name):
    (tmp_path / "text.png").write_text("no picture")
    name = name if name.startswith("https") else str(tmp_path / name)
    with pytest.raises(UserError) as error:
        score_choices(vlm, [examples[0] | {"image": name}])
    assert name in str(error.value)


def test_pictures_alike_are_found_among_files_of_a_model_that_cuts_them_into_patches(pictures, tmp_path):
    arrays = list(pictures.values())[:4]
    files = [tmp_path / f"{k}.png" for k in range(len(arrays))]
    for file, picture in zip(files, arrays, strict=True):
        Image.fromarray(picture).save(file)
    qwen = tiny_qwen()
    assert torch.equal(gists(qwen, files), gists(qwen, [Image.open(file) for file in files]))
    assert torch.equal(gists(qwen, files), gists(qwen, arrays))


def test_windowed_attention_gets_one_question_a_row(vlm):
    rows = [[1, 2, 3], [1, 2], [1]]
    assert shared_prefix.packs(vlm, [0, 1, 2], rows) == [[0, 1, 2]]
    vlm.core.config.get_text_config().layer_types = ["sliding_attention", "full_attention"]
    assert shared_prefix.packs(vlm, [0, 1, 2], rows) == [[0], [1], [2]]


def test_choices_of_several_tokens_are_scored_whole(vlm, examples, pictures):
    (row,) = with_images([r for r in examples if r["task"] == "task2"][:1], pictures)
    assert any(len(choice.split()) > 1 for choice in row["choices"])
    assert all(math.isfinite(score) for score in score_choices(vlm, [row])[0])


def test_no_choices_are_refused(vlm, pictures):
    image = next(iter(pictures.values()))
    with pytest.raises(UserError, match="expected at least one"):
        score_choices(vlm, [{"image": image, "prompt": "Is there a dog?", "choices": []}])


def test_batched_generation_equals_one_by_one(vlm, pictures):
    encoded = encode_all({"": vlm}, list(pictures.values())[:4])[""]
    prompts = ["Describe the image.", "Is there a dog in the image?", "What color is the cup?", "Describe the image."]
    together = generate(vlm, prompts, encoded, max_new_tokens=6)
    assert together == [generate(vlm, [p], [e], max_new_tokens=6)[0] for p, e in zip(prompts, encoded, strict=True)]


def test_contrastive_decoding_with_alpha_and_cutoff_zero_is_plain_decoding(vlm, pictures):
    images = list(pictures.values())[:3]
    clean, blind = (encode_all({"": vlm}, images, distort=d)[""] for d in (None, distortion("blank", 0)))
    prompts = ["Describe the image."] * 3
    plain = generate(vlm, prompts, clean, max_new_tokens=6)

    def answers(alpha):
        return generate(
            vlm, prompts, clean, max_new_tokens=6, processor=contrastive(vlm, [blind], "blank", alpha=alpha, cutoff=0.0)
        )

    assert answers(0.0) == plain
    assert answers(2.0) != plain


@pytest.mark.parametrize("view", ["alike", "least"])
def test_a_contrastive_answer_equals_one_that_reads_everything_anew_for_every_token(vlm, pictures, view):
    images = list(pictures.values())[:3]
    clean, *views = (encode_all({"": vlm}, images, distort=d)[""] for d in (None, distortion("blank", 0), distortion("noise", 500)))
    prompts = ["Describe the image.", "What color is the dog?", "Is there a boat in the image?"]
    # Batches of two: each batch's processor must take its own pictures.
    how = contrastive(vlm, views, view, alpha=1.5, cutoff=0.1)
    answers = generate(vlm, prompts, clean, max_new_tokens=24, processor=how, batch_size=2)
    for n, prompt in enumerate(prompts):
        ids: list[int] = []
        while len(ids) < 24 and (not ids or ids[-1] != vlm.tokenizer.eos_token_id):
            with torch.no_grad():
                seen, *unseen = (
                    vlm.hidden(vlm.inputs([look[n]], [vlm.suffix(prompt) + ids])).last_hidden_state[:, -1] @ vlm.head.T
                    for look in (clean, *views)
                )
            ids.append(int(purify(seen, isolate(unseen, view), alpha=1.5, cutoff=0.1).argmax()))
        assert answers[n] == tidy(vlm.tokenizer.decode(ids, skip_special_tokens=True))


def read_anew(vlm, prompts, clean, blind, tokens, temperature, seed, purify):
    """Contrastive answers without any cache: every token reads prompt and answer so far again. [prompts, tokens] ids."""
    torch.manual_seed(seed)
    said: list[list[int]] = [[] for _ in prompts]
    for _ in range(tokens):
        rows = []
        for prompt, so_far, *looks in zip(prompts, said, clean, blind, strict=True):
            inputs = [vlm.inputs([look], [vlm.suffix(prompt) + so_far]) for look in looks]
            seen, other = (vlm.hidden(each).last_hidden_state[:, -1] @ vlm.head.T for each in inputs)
            rows.append(purify(seen, other, alpha=0.5, cutoff=0.1))
        logits = torch.cat(rows)
        drawn = torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0] if temperature else logits.argmax(-1)
        for so_far, token in zip(said, drawn.tolist(), strict=True):
            so_far.append(token)
    return said


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("make", [tiny_vlm, tiny_qwen])
def test_a_long_contrastive_answer_from_caches_equals_one_that_reads_everything_anew(make, temperature, pictures, monkeypatch):
    """64 tokens, prompts of unequal length in one batch, greedy and drawn, also where positions have three dimensions."""
    vlm = make()
    images_only = [i for token, i in vlm.tokenizer.get_vocab().items() if token.startswith("<")]

    def in_words(*logits, **how):  # a random model says "<image>" too, and then there is no picture for it to read
        return purify(*logits, **how).index_fill(1, torch.tensor(images_only), -torch.inf)

    monkeypatch.setattr(generation, "purify", in_words)
    images = list(pictures.values())[:3]
    clean, blind = (encode_all({"": vlm}, images, distort=d)[""] for d in (None, distortion("noise", 500)))
    prompts = ["Describe the image.", "What color is the dog?", "Is there a boat in the image?"]
    how = contrastive(vlm, [blind], "noise", alpha=0.5, cutoff=0.1)
    answers = generate(vlm, prompts, clean, max_new_tokens=64, processor=how, temperature=temperature, seed=5)
    ends = vlm.tokenizer.eos_token_id
    said = read_anew(vlm, prompts, clean, blind, 64, temperature, 5, in_words)
    ids = [row[: row.index(ends)] if ends in row else row for row in said]
    assert max(map(len, ids)) == 64
    assert answers == [tidy(vlm.tokenizer.decode(row, skip_special_tokens=True)) for row in ids]


def test_sampled_contrastive_answers_follow_the_purged_distribution(vlm, pictures):
    image, prompt, draws = next(iter(pictures.values())), "What color is the dog?", 4000
    look, unseen = (encode_all({"": vlm}, [image], distort=d)[""] for d in (None, distortion("blank", 0)))
    with torch.no_grad():
        seen, other = (
            vlm.hidden(vlm.inputs(x, [vlm.suffix(prompt)])).last_hidden_state[:, -1] @ vlm.head.T for x in (look, unseen)
        )
    expected = (purify(seen, other, alpha=1.5, cutoff=0.1) / 0.7).softmax(-1)[0]
    how = {"max_new_tokens": 1, "temperature": 0.7, "batch_size": 1000, "seed": 3}
    processor = contrastive(vlm, [unseen * draws], "blank", alpha=1.5, cutoff=0.1)
    answers = generate(vlm, [prompt] * draws, look * draws, processor=processor, **how)
    for token in expected.topk(3).indices:
        share = answers.count(tidy(vlm.tokenizer.decode([int(token)], skip_special_tokens=True))) / draws
        assert share == pytest.approx(float(expected[token]), abs=0.03)


def test_purging_by_the_formula_and_by_nothing(logits):
    clean, distorted = logits
    assert torch.equal(purify(clean, distorted, alpha=0, cutoff=0), clean)
    purged = purify(clean, distorted, alpha=0.5, cutoff=0.1)
    for n in range(len(clean)):
        for v in range(clean.shape[1]):
            inside = clean[n].softmax(0)[v] >= 0.1 * clean[n].softmax(0).max()
            assert bool(inside) == bool(plausible(clean, 0.1)[n, v])
            assert purged[n, v] == (
                pytest.approx(float(1.5 * clean[n, v] - 0.5 * distorted[n, v]), abs=1e-5) if inside else -math.inf
            )


@pytest.mark.parametrize(("alpha", "cutoff", "word"), [(-0.1, 0.1, "alpha"), (1, -0.1, "cutoff"), (1, 1.5, "cutoff")])
def test_alpha_and_cutoff_out_of_range_are_named(logits, alpha, cutoff, word):
    with pytest.raises(UserError, match=word):
        purify(*logits, alpha=alpha, cutoff=cutoff)


def test_a_token_the_distortion_does_not_touch_scores_zero_and_a_seen_one_below(logits):
    clean = logits[0]
    tokens = clean.argmax(-1)
    assert torch.allclose(hallucination_score(clean, clean, tokens), torch.zeros(len(clean)))
    assert (hallucination_score(clean, -clean, tokens) < 0).all()


def test_diffusion_noise_follows_the_published_schedule():
    pixels = torch.full((1, 3, 64, 64), 2.0)
    for step, kept, added in ((500, 0.8630, 0.5052), (999, 0.2850, 0.9585)):
        noisy = distortion("noise", step)(pixels)
        assert float(noisy.mean()) == pytest.approx(2 * kept, abs=0.03)
        assert float(noisy.std()) == pytest.approx(added, abs=0.02)


def test_blur_equals_scipys_gaussian():
    from scipy.ndimage import gaussian_filter

    pixels = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = gaussian_filter(pixels[0, 0].numpy(), 2.0, mode="mirror", radius=6)
    assert np.allclose(blur(pixels, 2.0)[0, 0].numpy(), expected, atol=1e-5)


def test_alike_views_are_other_pictures_of_the_nearest_gist(vlm, pictures):
    images = list(pictures.values())
    clean = encode_all({"": vlm}, images)[""]
    pixels = torch.as_tensor(np.asarray(vlm.prepare(images)["pixel_values"]))
    quarters = [[p[:, y : y + 32, x : x + 32].mean((1, 2)) for y in (0, 32) for x in (0, 32)] for p in pixels]
    views = distorted_views(vlm, images, clean, "alike", 2, seed=0)
    for i, mine in enumerate(quarters):
        distance = [sum(float((a - b).square().sum()) for a, b in zip(mine, other, strict=True)) for other in quarters]
        nearest = sorted((d, k) for k, d in enumerate(distance) if k != i)[:2]
        assert [view[i].features.data_ptr() for view in views] == [clean[k].features.data_ptr() for _, k in nearest]
    with pytest.raises(UserError, match="alike: expected a number of views"):
        distorted_views(vlm, images, clean, "alike", len(images), seed=0)


def test_shuffled_views_are_other_pictures_each_once_and_none_is_no_picture(vlm, pictures):
    images = list(pictures.values())[:6]
    clean = encode_all({"": vlm}, images)[""]
    places = others(6, 5, seed=3)
    assert all(sorted(row) == [k for k in range(6) if k != i] for i, row in enumerate(places.tolist()))
    views = distorted_views(vlm, images, clean, "shuffled", 2, seed=3)
    assert [[view[i] is clean[k] for view, k in zip(views, row[:2], strict=True)] for i, row in enumerate(places.tolist())] == [
        [True, True]
    ] * 6
    (nothing,) = distorted_views(vlm, images, clean, "none", 0, seed=3)
    prompts = ["Is there a dog in the image?"] * 6
    blind = answer_logits(vlm, prompts, nothing)
    assert torch.allclose(blind, blind[:1].expand_as(blind), atol=1e-5)
    assert not torch.allclose(blind, answer_logits(vlm, prompts, clean), atol=1e-2)
    with pytest.raises(UserError, match="shuffled: expected a number of views from 1 to 5"):
        distorted_views(vlm, images, clean, "shuffled", 6, seed=0)


def test_several_views_count_as_the_mean_of_their_probabilities(logits):
    mean = (logits[0].softmax(-1) + logits[1].softmax(-1)) / 2
    one, two = logits
    assert torch.allclose(mixture([one, two]).exp(), mean, atol=1e-6) and mixture([one]) is one


def test_a_token_at_its_least_keeps_the_lean_of_both_answers():
    # Columns yes, no; the thing is there in the first view and absent in the second.
    there, absent = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.3, 0.7]]).log()
    assert torch.allclose(least([there, absent]), torch.tensor([[0.3, 0.1]]).log())
    assert torch.equal(isolate([there, absent], "least"), least([there, absent]))
    assert torch.equal(isolate([there, absent], "alike"), mixture([there, absent]))


def test_features_of_examples_are_each_pictures_own_and_their_views_are_those_asked_for_by_hand(vlm, pictures):
    images = list(pictures.values())[:4]
    rows = [{"image": images[k], "prompt": "Is there a dog in the image?"} for k in (0, 1, 1, 2)]
    rows.append({"image": images[1].copy(), "prompt": "Is there a cup in the image?"})
    rows.append({"image": images[3], "image_id": "mine", "prompt": "Is there a cup in the image?"})
    ids = [row["image_id"] for row in with_ids(rows)]
    assert ids[1] == ids[2] == ids[4] and len(set(ids)) == 4 and ids[5] == "mine"
    features = Features.of_examples(vlm, rows, seed=5)
    alone = encode_all({"": vlm}, images)[""]
    assert all(torch.equal(features.clean[i].features, e.features) for i, e in zip(dict.fromkeys(ids), alone, strict=True))
    (noisy,) = features.under("noise", 500)
    (by_hand,) = distorted_views(vlm, images, alone, "noise", 500, seed=5)
    assert all(torch.equal(noisy[i].features, e.features) for i, e in zip(dict.fromkeys(ids), by_hand, strict=True))
    assert features.under("noise", 500)[0] is noisy  # computed once
    same, little = features.clean_views(2)
    (by_hand,) = distorted_views(vlm, images, alone, "noise", 100, seed=6)
    assert same is features.clean and torch.equal(little["mine"].features, by_hand[3].features)
    with pytest.raises(UserError, match='example "Where\\?": expected an image or an image_id, got neither'):
        with_ids([{"prompt": "Where?"}])


def test_views_come_from_the_pool_and_never_are_the_picture_itself():
    gists = torch.randn(30, 12, generator=torch.Generator().manual_seed(0))
    chosen = nearest(gists, 4, pool=10)
    assert int(chosen.max()) < 10 and all(i not in row for i, row in enumerate(chosen.tolist()))
    assert torch.equal(chosen[20], torch.cdist(gists[20:21], gists[:10]).topk(4, largest=False).indices[0])


def test_the_prior_of_several_views_is_what_each_says_alone_combined(vlm, pictures):
    encoded = encode_all({"": vlm}, list(pictures.values())[:4])[""]
    prompts = ["Is there a dog in the image?", "Is there a cup in the image?", "Is there a dog in the image?"]
    views = [encoded[:3], [encoded[3], encoded[3], encoded[0]]]
    together = prior_logits(vlm, prompts, views, "least")
    for i, prompt in enumerate(prompts):
        alone = [answer_logits(vlm, [prompt], [view[i]]) for view in views]
        assert torch.allclose(together[i], least(alone)[0], atol=1e-4)


def test_an_unknown_view_and_one_the_pixels_do_not_allow_are_named(vlm):
    with pytest.raises(UserError, match='got "smear"'):
        distortion("smear", 1)
    with pytest.raises(UserError, match='view: expected one of noise, blur, .*, got "smear"'):
        distorted_views(vlm, [], [], "smear", 1, seed=0)
    with pytest.raises(UserError, match="this processor gives"):
        distortion("blur", 2)(torch.zeros(16, 1176))
    with pytest.raises(UserError, match='views "alike" and "least" need pixels'):
        gist(torch.zeros(16, 1176))
    with pytest.raises(UserError, match="60 x 64 pixels has no whole number of 16 x 16 patches"):
        distortion("patches", 0.5)(torch.zeros(1, 3, 60, 64))
    for kind, strength, expected in (("blur", 0, "a sigma above 0"), ("patches", 1.5, "a share from 0 to 1")):
        with pytest.raises(UserError, match=expected):
            distortion(kind, strength)


def test_shifted_mappings_undo_themselves(examples):
    for row in [r for r in examples if r["task"] == "task1"][:10]:
        variants = shifted(row, WORDING)
        assert len(variants) == 4 and variants[0][0]["prompt"] == row["prompt"]
        # A model that knows the right content answers every variant with that content's letter.
        content = row["meta"]["options"][row["choices"].index(row["answer"])]
        scores = []
        for variant, places in variants:
            letter = next(k for k, x in enumerate("ABCD") if f"{x}: {content}" in variant["prompt"].split("?")[1])
            scores.append([0.0 if k == letter else -5.0 for k in range(4)])
            assert places[row["choices"].index(row["answer"])] == letter
        assert int(average(variants, scores).argmax()) == row["choices"].index(row["answer"])


def test_a_letter_bias_cancels_in_the_average(examples):
    row = next(r for r in examples if r["task"] == "task1")
    biased = [[3.0, 0.0, 0.0, 0.0]] * 4  # always "A", whatever stands there
    assert np.ptp(average(shifted(row, WORDING), biased)) < 1e-12


def test_the_prior_is_fitted_only_where_it_helps():
    rng = np.random.default_rng(0)
    right = rng.integers(0, 4, 200)
    clean = np.eye(4)[right] * 4
    kinds = [list(range(4))] * 200
    assert fit_prior(list(clean), list(clean), kinds, right).strength == 0
    tilted = clean + np.array([5.0, 0, 0, 0])
    free = [np.array([5.0, 0, 0, 0])] * 200  # what is said without a picture
    prior = fit_prior(free, list(tilted), kinds, right)
    fixed = [int(prior.remove(row, kinds[0]).argmax()) for row in tilted]
    assert np.mean(fixed == right) > np.mean(tilted.argmax(1) == right)


def test_content_classes_name_what_recurs(examples):
    detection = next(r for r in examples if r["task"] == "task1")
    assert sorted(content_classes(detection, WORDING)) == [0, 0, 0, 1]
    assert content_classes(next(r for r in examples if r["task"] == "task2"), WORDING) == [0, 1, 2, 3]


def test_a_picture_read_once_for_all_its_questions_gives_what_each_question_gives_alone(vlm, examples, pictures):
    tasks = with_images(examples[:12], pictures)
    asked = [
        {
            "image_id": row["image_id"],
            "image": row["image"],
            "prompt": f"Is there a {name} in the image?",
            "choices": ["Yes", "No", "Yes No"],
        }
        for row in tasks[:3]
        for name in ("dog", "cup", "big red car", "hen")
    ]
    together = score_choices(vlm, tasks + asked, batch_size=5)
    for row, scores in zip(tasks + asked, together, strict=True):
        assert scores == pytest.approx(score_choices(vlm, [row])[0], abs=1e-4)
