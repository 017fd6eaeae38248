"""Training sets: which tokens are asked for, shared vocabularies, and examples of image, prompt, choices and answer alone."""

import numpy as np
import pytest
import torch
from conftest import tiny_vlm, training_set

from hkd_core.common.errors import UserError
from hkd_core.hkd import PyramidSettings
from hkd_core.hkd.pyramid import PyramidStep
from hkd_core.models.vlm import encode_all
from hkd_core.training.examples import TrainingSet, answer_hidden, project


def test_models_with_different_tokenizers_are_named(vlm, examples, pictures):
    other = tiny_vlm(32, 1, 1)
    known = other.tokenizer.get_vocab()
    rotated = {token: len(known) - 1 - place for token, place in known.items()}
    other.tokenizer.get_vocab = lambda: rotated
    with pytest.raises(UserError, match="teacher and student: vocabularies differ at id 0"):
        training_set(examples[:2], pictures, student=vlm, teacher=other)


def test_heads_padded_to_different_lengths_are_cut_to_the_shared_vocabulary(vlm, examples, pictures):
    padded = tiny_vlm(32, 1, 1)
    size = len(padded.head)
    padded.model.resize_token_embeddings(size + 24)
    with torch.no_grad():
        padded.model.get_output_embeddings().weight[size:] = 50.0  # padding is no token, whatever its logit
    data = training_set(examples[:6], pictures, student=vlm, teacher=padded)
    step = PyramidStep({"teacher": padded}, {"student": vlm}, PyramidSettings(steps=1))
    batch = data.collate(range(6))
    terms = step(batch)
    ours, theirs = (
        (project(v, answer_hidden(v, batch, n)[0])[:, :size].double() / 2).log_softmax(-1)
        for n, v in (("student", vlm), ("teacher", padded))
    )
    expected = 4 * (theirs.exp() * (theirs - ours)).sum()
    torch.testing.assert_close(terms["student/level"].total.double(), expected, rtol=1e-3, atol=1e-4)


def test_answer_positions_are_those_whose_next_token_is_the_answer(vlm, examples, pictures):
    data = training_set(examples[:6], pictures, student=vlm)
    batch = data.collate(range(6))
    at = 0
    for row, example in enumerate(data.examples):
        answer = vlm.tokenizer(example["answer"])["input_ids"]
        assert batch["labels"][at : at + len(answer)].tolist() == answer
        places = batch["asked"][row].nonzero().flatten()
        assert batch["input_ids"][row][places + 1].tolist() == answer
        at += len(answer)
    assert at == batch["tokens"]


def test_examples_with_their_pictures_become_the_set_that_ids_and_features_make(vlm, examples, pictures, strange):
    known = training_set(examples[:8], pictures, student=vlm)
    alone = TrainingSet.of_examples({"student": vlm}, strange)
    by_id = [
        {key: value for key, value in row.items() if key in ("image_id", "prompt", "choices", "answer")} for row in examples[:8]
    ]
    mapped = TrainingSet.of_examples({"student": vlm}, by_id, pictures)
    for found in (alone, mapped):
        ours, theirs = found.collate(range(8)), known.collate(range(8))
        assert torch.equal(ours["input_ids"], theirs["input_ids"]) and torch.equal(ours["labels"], theirs["labels"])
        assert all(torch.equal(a, b) for a, b in zip(ours["features"]["student"], theirs["features"]["student"], strict=True))


def test_a_picture_that_several_examples_share_is_read_once(vlm, strange, monkeypatch):
    read = []
    prepare = vlm.prepare
    monkeypatch.setattr(vlm, "prepare", lambda pictures: (read.extend(pictures), prepare(pictures))[1])
    TrainingSet.of_examples({"student": vlm}, [strange[0] | {"prompt": "what color is the dog"}, *strange])
    assert len(read) == len({id(row["image"]) for row in strange})


def test_examples_without_a_picture_or_with_a_strange_answer_are_named(vlm, strange):
    with pytest.raises(UserError, match="example 1: expected a picture under image, or an image_id among images, got neither"):
        TrainingSet.of_examples({"student": vlm}, [strange[0], strange[1] | {"image": None, "image_id": "nowhere"}])
    with pytest.raises(UserError, match='example 0: expected an answer among .*, got "maybe"'):
        TrainingSet.of_examples({"student": vlm}, [strange[0] | {"answer": "maybe"}])


def test_under_another_name_a_model_gets_the_same_features(vlm, examples, pictures):
    other = tiny_vlm(64, 1, 1)
    data = training_set(examples[:4], pictures, small=vlm, large=other)
    renamed = data.as_roles(student="large").collate(range(4))["features"]
    assert list(renamed) == ["student"]
    ids = [row["image_id"] for row in examples[:4]]
    seen = dict(zip(ids, encode_all({"": other}, [pictures[i] for i in ids])[""], strict=True))
    assert all(np.allclose(a, seen[i].features) for a, i in zip(renamed["student"], ids, strict=True))
