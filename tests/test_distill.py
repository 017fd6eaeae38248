"""The loop and the objectives: each against what the formula gives by hand."""

import json
import os
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import tiny_vlm
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hkd_core.common.errors import UserError
from hkd_core.hkd.pyramid import PyramidStep, check_levels, mean_distribution
from hkd_core.hkd.ternary import TernaryStep, imitation, relations, roles
from hkd_core.inference.scoring import score_choices
from hkd_core.losses import divergence
from hkd_core.models import load_vlm
from hkd_core.models.vlm import encode_all
from hkd_core.training.examples import UNLABELLED, TrainingSet, answer_hidden, project
from hkd_core.training.objectives import Distillation, ModelGroup, Supervised, agreement
from hkd_core.training.teacher_answers import choice_logprobs, collate_with_teachers
from hkd_core.training.trainer import LossTerm, Schedule, shuffled, train
from hkd_core.world.sets import first_labelled, in_all_places, rotated

HOW = {"kind": "forward_kl", "beta": 0.5, "temperature": 2.0}


def training_set(examples, pictures, **vlms):
    ids = list(dict.fromkeys(row["image_id"] for row in examples))
    looks = {name: dict(zip(ids, e, strict=True)) for name, e in encode_all(vlms, [pictures[i] for i in ids]).items()}
    return TrainingSet(vlms, examples, looks)


@pytest.fixture
def trio():
    return {"teacher": tiny_vlm(64, 2, 1), "assistant": tiny_vlm(32, 3, 2), "student": tiny_vlm(32, 1, 3)}


class Line(nn.Module):
    """Least squares on one number: small enough to check the loop by hand. Keeps the gradient of every step."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))
        self.gradients = []
        self.weight.register_post_accumulate_grad_hook(lambda p: self.gradients.append(float(p.grad)))

    def forward(self, batch):
        return {"squares": LossTerm((self.weight[0, 0] * batch["x"] - batch["y"]).square().sum())}


def lines(indices):
    # Batches of different sizes: example i counts for i % 3 + 1 tokens.
    x = torch.tensor([float(i) / 10 for i in indices for _ in range(i % 3 + 1)])
    return {"x": x, "y": 2 * x, "tokens": len(x), "examples": len(indices)}


def test_accumulated_micro_batches_give_the_gradient_of_one_batch_however_many_tokens_each_has():
    whole, parts = Line(), Line()
    batches = [[0, 1, 3], [4, 5, 6, 7, 8]]  # 4 tokens, and 11
    seen = iter(batches)
    everything = [i for batch in batches for i in batch]
    one = train(whole, lambda _: lines(everything), 8, Schedule(1, 8, 0.1, clip=0), seed=0)
    two = train(parts, lambda _: lines(next(seen)), 8, Schedule(1, 4, 0.1, clip=0, accumulate=2), seed=0)
    x = lines(everything)["x"].double()
    by_hand = float((2 * x * (0 * x - 2 * x)).sum() / len(x))  # d/dw of the mean over tokens of (w x - 2 x)^2, at w = 0
    # What has been accumulated after the last micro-batch is what the optimiser sees.
    assert whole.gradients[-1] == pytest.approx(by_hand, rel=1e-5) and parts.gradients[-1] == pytest.approx(by_hand, rel=1e-5)
    mean_of_means = sum(float((-4 * lines(b)["x"].square()).mean()) for b in batches) / 2
    assert abs(mean_of_means - by_hand) > 0.05 * abs(
        by_hand
    )  # what a trainer would get that divides each micro-batch by its own count
    assert one[0]["squares"] == pytest.approx(two[0]["squares"], rel=1e-5)


def test_the_loop_finds_the_line_and_logs_what_it_did(tmp_path):
    model = Line()
    log = tmp_path / "log.jsonl"
    history = train(model, lines, 30, Schedule(200, 8, 0.2, weight_decay=0), seed=0, log=log)
    assert model.weight.item() == pytest.approx(2, abs=0.05)
    assert [json.loads(line) for line in log.read_text().splitlines()] == history
    assert history[-1]["squares"] < history[0]["squares"]


def test_a_loss_that_is_not_finite_stops_with_step_parts_and_examples(tmp_path):
    class Broken(Line):
        def forward(self, batch):
            return {"squares": LossTerm(self.weight.sum() * float("nan"))}

    with pytest.raises(UserError, match=r"loss is not finite at step 0 \(squares nan\)"):
        train(Broken(), lines, 9, Schedule(3, 3, 0.1), seed=0, log=tmp_path / "log")
    assert len(json.loads((tmp_path / "log.bad.json").read_text())["examples"]) == 3


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_stops_before_it_reaches_a_weight_even_in_the_last_step(tmp_path, clip):
    class Steep(Line):
        def forward(self, batch):
            return {"root": LossTerm((self.weight * 0).sqrt().sum() + self.weight.sum())}  # finite, its slope is not

    model, fed = Steep(), []

    def collate(indices):
        fed.append(indices)
        return lines(indices) | {"ids": [f"picture {i}" for i in indices]}

    with pytest.raises(UserError, match=r"gradient is not finite at step 0 \(root 0\)"):
        train(model, collate, 9, Schedule(1, 2, 0.1, clip=clip, accumulate=2), seed=0, log=tmp_path / "log")
    assert model.weight.item() == 0
    report = json.loads((tmp_path / "log.bad.json").read_text())
    assert report["examples"] == [*fed[0], *fed[1]] and report["ids"] == [f"picture {i}" for i in report["examples"]]


PROCESSES = """
import json, sys
import torch
from torch import nn
from hkd_core.training.trainer import LossTerm, Schedule, train

class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))
    def forward(self, batch):
        return {"squares": LossTerm((self.weight[0, 0] * batch["x"] - batch["y"]).square().sum())}

def lines(indices):
    x = torch.tensor([float(i) / 10 for i in indices for _ in range(i % 3 + 1)])
    return {"x": x, "y": 2 * x, "tokens": len(x), "examples": len(indices)}

model = Line()
history = train(model, lines, 30, Schedule(40, 4, 0.2, accumulate=int(sys.argv[1])), seed=0, until=0.05)
print(json.dumps([history, model.weight.item()]))
"""


def test_two_processes_do_and_log_and_stop_as_one_that_accumulates_twice_as_much(tmp_path):
    (tmp_path / "line.py").write_text(PROCESSES)
    alone = subprocess.run([sys.executable, "line.py", "2"], cwd=tmp_path, capture_output=True, text=True, check=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "line.py", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    both = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment)
    history, weight = json.loads(alone.stdout)
    assert 5 < len(history) < 40 and len(both.stdout.splitlines()) == 2
    for line in both.stdout.splitlines():
        logged, learned = json.loads(line)
        assert learned == pytest.approx(weight, rel=1e-5)
        assert [r["squares"] for r in logged] == pytest.approx([r["squares"] for r in history], rel=1e-4, abs=1e-5)


def test_a_divergence_that_is_infinite_stops_with_the_examples_names(vlm, examples, pictures, tmp_path):
    class Ruled(ModelGroup):
        def forward(self, batch):
            logits = project(self.vlms["student"], answer_hidden(self.vlms["student"], batch, "student")[0])
            impossible = torch.full_like(logits, -torch.inf).index_fill(1, torch.tensor([0]), 0.0)
            return {"purified": LossTerm(divergence(logits, impossible, kind="reverse_kl")[0])}

    data = training_set(examples[:4], pictures, student=vlm)
    with pytest.raises(UserError, match="ruled: step 0: reverse_kl is infinite"):
        train(
            Ruled({"student": vlm}),
            data.collate,
            4,
            Schedule(1, 4, 0.1),
            seed=0,
            log=tmp_path / "log",
            title="ruled",
        )
    report = json.loads((tmp_path / "log.bad.json").read_text())
    assert report["ids"] == [f"{examples[i]['image_id']} {examples[i]['task']}" for i in report["examples"]]


def test_nothing_to_train_is_said():
    model = Line()
    model.weight.requires_grad_(False)
    with pytest.raises(UserError, match="nothing to train"):
        train(model, lines, 3, Schedule(1, 1, 0.1), seed=0)
    with pytest.raises(UserError, match="lines: nothing to train on: no examples"):
        train(Line(), lines, 0, Schedule(1, 1, 0.1), seed=0, title="lines")


def test_batches_are_the_same_for_a_seed_cover_everything_and_sort_by_length():
    a, b = (shuffled(100, 10, 50, seed=4, lengths=[i % 7 for i in range(100)]) for _ in range(2))
    assert a == b and a != shuffled(100, 10, 50, seed=5, lengths=[i % 7 for i in range(100)])
    assert {i for batch in a for i in batch} == set(range(100))
    assert max(len({i % 7 for i in batch}) for batch in a) <= 3


def test_two_runs_with_one_seed_give_the_same_weights(examples, pictures):
    weights = []
    for _ in range(2):
        vlm = tiny_vlm()
        data = training_set(examples[:16], pictures, student=vlm)
        train(Supervised(vlm), data.collate, len(data), Schedule(3, 8, 1e-3), seed=1)
        weights.append({k: v.clone() for k, v in vlm.model.state_dict().items()})
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_a_lora_learns_alone_and_the_weights_it_was_put_into_stay(vlm, examples, pictures):
    before = {name: weight.clone() for name, weight in vlm.model.state_dict().items()}
    vlm.model = get_peft_model(vlm.model, LoraConfig(r=2, target_modules=r".*language_model.*(q_proj|v_proj)"))
    data = training_set(examples[:8], pictures, student=vlm)
    first, *_, last = train(Supervised(vlm), data.collate, 8, Schedule(50, 8, 1e-1), seed=0)
    assert last["labels"] < first["labels"] / 2
    after = vlm.model.unload().state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_a_model_with_a_lora_is_saved_whole_and_answers_the_same(vlm, examples, pictures, tmp_path):
    vlm.model = get_peft_model(vlm.model, LoraConfig(r=2, target_modules=r".*language_model.*(q_proj|v_proj)"))
    data = training_set(examples[:8], pictures, student=vlm)
    train(Supervised(vlm), data.collate, 8, Schedule(3, 8, 1e-1), seed=0)
    vlm.save(tmp_path)
    rows = [row | {"image": pictures[row["image_id"]]} for row in examples[:6]]
    for ours, loaded in zip(score_choices(vlm, rows), score_choices(load_vlm(tmp_path), rows), strict=True):
        assert loaded == pytest.approx(ours, abs=1e-4)
    assert hasattr(vlm.model, "peft_config")  # what trains goes on as it was


def test_frozen_models_stay_in_eval_mode_while_the_student_trains(trio):
    step = TernaryStep(
        trio["student"],
        trio["teacher"],
        trio["assistant"],
        {"teacher": 1.0},
        labels=1.0,
        relation_weight=1.0,
        hidden_weight=1.0,
        **HOW,
    )
    step.train()
    assert trio["student"].model.training
    for name in ("teacher", "assistant"):
        assert not any(module.training for module in trio[name].model.modules())


def test_a_step_in_bf16_is_the_step_in_float32_but_for_rounding(examples, pictures, monkeypatch):
    losses = {}
    for precision in ("float32", "bf16"):
        monkeypatch.setenv("HKD_PRECISION", precision)
        AcceleratorState._reset_state(reset_partial_state=True)
        vlm = tiny_vlm(32, 2, 0)
        data = training_set(examples[:8], pictures, student=vlm)
        losses[precision] = train(Supervised(vlm), data.collate, 8, Schedule(4, 8, 1e-3), seed=0)
        assert all(weight.dtype == torch.float32 for weight in vlm.model.parameters())
    for exact, rounded in zip(losses["float32"], losses["bf16"], strict=True):
        assert exact["labels"] != rounded["labels"]
        assert rounded["labels"] == pytest.approx(exact["labels"], rel=0.02)


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
    step = PyramidStep({"teacher": padded}, {"student": vlm}, down=1.0, feedback=0.1, peers=0.0, **HOW)
    batch = data.collate(range(6))
    parts = step(batch)
    ours, theirs = (
        (project(v, answer_hidden(v, batch, n)[0])[:, :size].double() / 2).log_softmax(-1)
        for n, v in (("student", vlm), ("teacher", padded))
    )
    expected = 4 * (theirs.exp() * (theirs - ours)).sum()
    torch.testing.assert_close(parts["student/level"].total.double(), expected, rtol=1e-3, atol=1e-4)


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


def test_supervised_loss_equals_cross_entropy_by_hand(vlm, examples, pictures):
    data = training_set(examples[:6], pictures, student=vlm)
    batch = data.collate(range(6))
    found = Supervised(vlm)(batch)["labels"].total
    logp = project(vlm, answer_hidden(vlm, batch, "student")[0]).double().log_softmax(-1)
    expected = -sum(logp[k, label] for k, label in enumerate(batch["labels"]))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_an_example_without_a_label_asks_for_one_token_and_teaches_through_the_voices_alone(trio, examples, pictures):
    data = training_set(examples[6:10] + [row | {"answer": ""} for row in examples[:6]], pictures, **trio)
    collate = collate_with_teachers(data, {"teacher": choice_logprobs(trio["teacher"], "teacher", data, shifted=False)})
    batch, alone, known = collate(range(10)), collate(range(4, 10)), collate(range(4))
    assert (alone["tokens"], alone["labelled"]) == (6, 0) and batch["labelled"] == known["tokens"] == known["labelled"]
    assert alone["asked"].int().argmax(1).tolist() == (alone["attention_mask"].sum(1) - 1).tolist()  # behind the prompt's last word
    assert alone["chosen"].tolist() == [UNLABELLED] * 6
    objective = Distillation(trio["student"], {"teacher": 0.5}, labels=0.5, **HOW)
    parts, of_known, of_alone = objective(batch), objective(known), objective(alone)
    torch.testing.assert_close(parts["labels"].total, of_known["labels"].total, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parts["teacher"].total, of_known["teacher"].total + of_alone["teacher"].total, rtol=1e-4, atol=1e-4)
    assert of_alone["labels"].total == 0 and of_alone["teacher"].total > 0


def test_labels_count_per_labelled_token_however_many_examples_have_none(vlm, examples, pictures):
    hidden = [row | {"answer": ""} for row in examples[:6]]
    losses = []
    for rows in (examples[6:10], examples[6:10] + hidden):
        data = training_set(rows, pictures, student=vlm)
        losses.append(train(Supervised(vlm), data.collate, len(rows), Schedule(1, len(rows), 1e-9), seed=0)[0]["labels"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_answers_of_a_frozen_model_are_its_probabilities_of_the_choices_first_tokens(trio, examples, pictures):
    caption = examples[0] | {"choices": [], "answer": "a dog"}
    data = training_set(
        [examples[0], caption, examples[1], examples[2] | {"choices": ["Yes", "No"], "answer": "No", "meta": {}}], pictures, **trio
    )
    found = choice_logprobs(trio["teacher"], "teacher", data, shifted=False)
    assert torch.isinf(found[1]).all() and torch.isinf(found[3, 2:]).all()  # no choices; two of four
    batch = data.collate([0, 2])
    logits = project(trio["teacher"], answer_hidden(trio["teacher"], batch, "teacher")[0]).double().detach()
    begins = [0, int(batch["asked"][0].sum())]
    for row, begin in zip((0, 2), begins, strict=True):
        tokens = [trio["teacher"].tokenizer(choice)["input_ids"][0] for choice in data.examples[row]["choices"]]
        expected = logits[begin][tokens].log_softmax(-1)
        torch.testing.assert_close(found[row].double(), expected, rtol=1e-4, atol=1e-4)


def test_choices_that_begin_alike_cannot_be_taught_and_are_named(vlm, examples, pictures):
    data = training_set([examples[0] | {"choices": ["true", "true dog"], "answer": "true"}], pictures, student=vlm)
    with pytest.raises(UserError, match="true, true dog: two begin with the same token"):
        choice_logprobs(vlm, "student", data, shifted=False)


def lettered_rows(examples):
    return [row for row in examples if row["meta"].get("options")]


def test_a_turned_example_keeps_the_right_content_and_four_turns_come_back(examples):
    for row in lettered_rows(examples)[:5]:
        right = row["meta"]["options"]["ABCD".index(row["answer"])]
        for turn in range(5):
            new = rotated(row, turn)
            letter = new["answer"]
            assert new["meta"]["options"]["ABCD".index(letter)] == right
            assert f"{letter}: {right}" in new["prompt"]
        assert rotated(row, 4) == row
        assert rotated(row | {"answer": ""}, 1)["answer"] == ""
    assert len({row["answer"] for row in in_all_places(lettered_rows(examples)[:1])}) == 4


def test_what_was_made_of_a_picture_is_labelled_if_the_picture_is():
    rows = [{"image_id": name, "meta": {}} for name in ("a", "a", "b", "c")]
    made = [{"image_id": f"{name}-a0", "meta": {"of": name}} for name in ("c", "a", "b")]
    assert first_labelled(rows + made, 2) == rows[:3] + made[1:]
    with pytest.raises(UserError, match="labels of 4 pictures wanted .*data.tuned.*only 3 have some"):
        first_labelled(rows + made, 4)


def test_shifted_voices_say_the_mean_over_all_places_and_the_same_at_each(vlm, examples, pictures):
    row = lettered_rows(examples)[0]
    data = training_set(in_all_places([row]), pictures, student=vlm)
    plain, shifted = (choice_logprobs(vlm, "student", data, shifted=s) for s in (False, True))
    for content in row["meta"]["options"]:
        places = [r["meta"]["options"].index(content) for r in data.examples]
        mean = sum(plain[i, place] for i, place in enumerate(places)) / 4
        there = [float(shifted[i, place]) for i, place in enumerate(places)]
        assert there == pytest.approx([there[0]] * 4, abs=1e-5)
        assert there[0] >= float(mean) - 1e-5  # the geometric mean, normalised
    assert float(shifted[0].exp().sum()) == pytest.approx(1, abs=1e-5)


def test_plain_distillation_equals_the_formula_over_the_choices(trio, examples, pictures):
    data = training_set(examples[:6], pictures, **trio)
    said = choice_logprobs(trio["teacher"], "teacher", data, shifted=False)
    objective = Distillation(trio["student"], {"teacher": 0.25}, labels=0.75, **HOW)
    batch = collate_with_teachers(data, {"teacher": said})(range(6))
    parts = objective(batch)
    assert (parts["labels"].weight, parts["teacher"].weight) == (0.75, 0.25)
    logits = project(trio["student"], answer_hidden(trio["student"], batch, "student")[0]).double().detach()
    expected, begin = 0.0, 0
    for i, row in enumerate(data.examples):
        tokens = [trio["student"].tokenizer(choice)["input_ids"][0] for choice in row["choices"]]
        q = (logits[begin][tokens] / 2).log_softmax(-1)
        p = (said[i, : len(tokens)].double() / 2).log_softmax(-1)
        expected += float(4 * (p.exp() * (p - q)).sum())
        begin += int(batch["asked"][i].sum())
    assert float(parts["teacher"].total.detach()) == pytest.approx(expected, rel=1e-4)
    sum(part.total for part in parts.values()).backward()
    assert any(p.grad is not None for p in trio["student"].model.parameters())


def test_weights_that_sum_to_nothing_and_a_gate_for_one_are_refused(vlm):
    with pytest.raises(UserError, match="labels 0, teacher 0"):
        Distillation(vlm, {"teacher": 0.0}, labels=0.0, **HOW)
    with pytest.raises(UserError, match="at least two models that can agree"):
        Distillation(vlm, {"teacher": 1.0}, labels=0.0, gate=True, **HOW)


def test_a_pyramids_weights_are_none_below_zero_and_one_of_zero_is_still_logged(trio, examples, pictures):
    upper, lower = {"teacher": trio["teacher"]}, {"student": trio["student"]}
    with pytest.raises(UserError, match="pyramid weights: expected none below 0, got down 1, feedback -0.1"):
        PyramidStep(upper, lower, down=1.0, feedback=-0.1, peers=0.0, **HOW)
    data = training_set(examples[:4], pictures, **{name: trio[name] for name in ("teacher", "student")})
    parts = PyramidStep(upper, lower, down=1.0, feedback=0.0, peers=0.0, **HOW)(data.collate(range(4)))
    shown = parts["teacher/level"]
    assert shown.weight == 0 and shown.total > 0 and not shown.total.requires_grad


def test_every_pyramid_part_equals_the_formula_and_teaches_only_its_own_model(trio, examples, pictures):
    data = training_set(examples[:6], pictures, **trio)
    upper, lower = {"teacher": trio["teacher"]}, {"assistant": trio["assistant"], "student": trio["student"]}
    step = PyramidStep(upper, lower, down=1.0, feedback=0.1, peers=0.5, **HOW)
    batch = data.collate(range(6))
    parts = step(batch)
    logp = {n: (project(v, answer_hidden(v, batch, n)[0]).double() / 2).log_softmax(-1) for n, v in trio.items()}

    def kl(p, q):
        return 4 * (p.exp() * (p - q)).sum()

    middle = torch.stack([logp["assistant"], logp["student"]]).logsumexp(0) - torch.log(torch.tensor(2.0))
    expected = {
        "student/level": kl(logp["teacher"], logp["student"]),
        "student/peers": kl(logp["assistant"], logp["student"]),
        "teacher/level": kl(middle, logp["teacher"]),
    }
    for name, value in expected.items():
        torch.testing.assert_close(parts[name].total.double(), value, rtol=1e-3, atol=1e-4)
    assert {name: part.weight for name, part in parts.items()} == {
        **{f"{name}/labels": 1.0 for name in trio},
        **{"assistant/level": 1.0, "student/level": 1.0, "teacher/level": 0.1},
        **{"assistant/peers": 0.5, "student/peers": 0.5},
    }
    for name, part in parts.items():
        step.zero_grad()
        part.total.backward(retain_graph=True)
        assert {n for n, v in trio.items() if any(p.grad is not None and p.grad.any() for p in v.model.parameters())} == {
            name.split("/")[0]
        }


def test_three_peers_each_match_the_mean_of_the_other_twos_divergences(examples, pictures):
    models = {name: tiny_vlm(32, 1, seed) for seed, name in enumerate(("apex", "a", "b", "c"))}
    data = training_set(examples[:4], pictures, **models)
    lower = {name: models[name] for name in ("a", "b", "c")}
    batch = data.collate(range(4))
    parts = PyramidStep({"apex": models["apex"]}, lower, down=1.0, feedback=0.0, peers=0.5, **HOW)(batch)
    logp = {n: (project(v, answer_hidden(v, batch, n)[0]).double() / 2).log_softmax(-1).detach() for n, v in lower.items()}
    to_b, to_c = (4 * float((logp[p].exp() * (logp[p] - logp["a"])).sum()) for p in ("b", "c"))
    assert float(parts["a/peers"].total.detach()) == pytest.approx((to_b + to_c) / 2, rel=1e-3)


def test_both_levels_learn_together_and_the_lower_follows_what_the_upper_becomes(trio, examples, pictures):
    upper, lower = {"teacher": trio["teacher"]}, {"student": trio["student"]}
    data = training_set(examples[:6], pictures, **{name: trio[name] for name in ("teacher", "student")})
    step = PyramidStep(upper, lower, down=1.0, feedback=0.1, peers=0.0, **HOW)
    before = {name: vlm.model.get_output_embeddings().weight.clone() for name, vlm in (upper | lower).items()}
    batch = data.collate(range(6))
    first = step(batch)
    train(step, data.collate, 6, Schedule(40, 6, 1e-2), seed=0)
    for name, vlm in (upper | lower).items():
        assert not torch.equal(vlm.model.get_output_embeddings().weight, before[name])
    last = step(batch)
    for name in ("teacher/labels", "student/labels", "student/level"):  # to the level as it is now
        assert last[name].total < 0.5 * first[name].total


def test_the_temperature_moves_from_first_to_final_and_stays_where_there_is_no_final(trio):
    upper, lower = {"teacher": trio["teacher"]}, {"student": trio["student"]}
    for how, expected in (({"temperature": 4.0, "final_temperature": 1.0}, [4.0, 2.5, 1.0]), ({"temperature": 2.0}, [2.0] * 3)):
        step = PyramidStep(upper, lower, down=1.0, feedback=0.0, peers=0.0, **{**HOW, **how})
        found = []
        for done in (0.0, 0.5, 1.0):
            step.cool(done)
            found.append(step.settings["temperature"])
        assert found == expected


def test_four_levels_learn_pair_by_pair_each_from_what_the_one_above_has_become(examples, pictures):
    names = ("a", "b", "c", "d")
    models = {name: tiny_vlm(32, 1, seed) for seed, name in enumerate(names)}
    data = training_set(examples[:6], pictures, **models)
    for upper, lower in pairwise(names):
        step = PyramidStep({upper: models[upper]}, {lower: models[lower]}, down=1.0, feedback=0.0, peers=0.0, **HOW)
        first, *_, last = train(step, data.collate, 6, Schedule(20, 6, 1e-2), seed=0)
        assert last[f"{lower}/level"] < first[f"{lower}/level"] / 2


def test_where_there_is_no_label_the_lower_level_is_taught_and_the_upper_hears_nothing_from_it(trio, examples, pictures):
    data = training_set([row | {"answer": ""} for row in examples[:6]], pictures, **trio)
    step = PyramidStep({"teacher": trio["teacher"]}, {"student": trio["student"]}, down=1.0, feedback=0.5, peers=0.0, **HOW)
    parts = step(data.collate(range(6)))
    assert parts["student/level"].total > 0
    assert parts["teacher/level"].total == parts["teacher/labels"].total == parts["student/labels"].total == 0


def test_the_mean_of_a_level_is_the_mean_of_its_probabilities():
    a, b = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    mean = (mean_distribution([a, b], 2.0) / 2).softmax(-1)
    torch.testing.assert_close(mean, ((a / 2).softmax(-1) + (b / 2).softmax(-1)) / 2)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([["a"]], "at least two"),
        ([["a"], ["z"]], 'unknown model "z"'),
        ([["a"], ["a"]], "named twice"),
        ([["a"], []], "none empty"),
    ],
)
def test_wrong_levels_are_named(levels, message):
    with pytest.raises(UserError, match=message):
        check_levels(levels, ["a", "b"])


def test_the_gate_opens_on_agreement_and_closes_on_any_dissent():
    sure_of_0, sure_of_1, unsure = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[0.0, 9.0, 0.0]]), torch.zeros(1, 3)
    label = torch.tensor([0])
    assert agreement([sure_of_0, sure_of_0, sure_of_0], label) > 0.99
    assert agreement([sure_of_1, sure_of_1], label) < 0.01  # agree with each other, not with the label
    assert agreement([sure_of_0, sure_of_0, sure_of_1], label) < 0.05
    assert 0.3 < agreement([unsure, unsure], label) < 0.34


def test_where_no_label_is_known_the_gate_asks_whether_all_are_sure_of_the_same():
    sure_of_0, sure_of_1, unsure = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[0.0, 9.0, 0.0]]), torch.zeros(1, 3)
    nobody = torch.tensor([UNLABELLED])
    assert agreement([sure_of_1, sure_of_1], nobody) > 0.99
    assert agreement([sure_of_0, sure_of_1], nobody) < 0.05
    assert 0.3 < agreement([unsure, unsure], nobody) < 0.34


def test_the_gate_equals_its_formula_with_choices_that_are_not_there():
    teachers = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    chosen = torch.tensor([0, 2, 1, 0, 2])
    p = teachers.exp()
    middle = p.mean(0)
    jsd = torch.stack([(q * (q / middle).log()).sum(-1) for q in p]).mean(0)
    expected = p[:, range(5), chosen].prod(0) ** (1 / 3) * (1 - jsd / torch.tensor(3.0, dtype=torch.float64).log())
    torch.testing.assert_close(agreement(list(teachers), chosen), expected, rtol=1e-6, atol=1e-8)
    padded = torch.cat([teachers, torch.full((3, 5, 2), -torch.inf, dtype=torch.float64)], -1)
    torch.testing.assert_close(agreement(list(padded), chosen), expected, rtol=1e-6, atol=1e-8)


def test_relations_are_cosines_of_visual_tokens_and_the_answer():
    hidden = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    image = torch.tensor([[0, 1, 1, 1, 0, 0]] * 2).bool()
    asked = torch.tensor([[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]]).bool()
    found = relations(hidden, image, asked)
    assert found.shape == (2, 4, 4)
    expected = torch.cosine_similarity(hidden[1, 2], hidden[1, 5], dim=0)
    assert float(found[1, 1, 3]) == pytest.approx(float(expected), abs=1e-6)
    with pytest.raises(UserError, match="as many visual tokens in every picture of a batch, got 2 to 3"):
        relations(hidden, image & torch.tensor([[True], [False]]) | torch.tensor([[0], [1]]).bool() & (torch.arange(6) < 2), asked)


def test_imitation_is_the_mean_squared_error_against_each_state_standardised_over_its_features():
    mapped, target = torch.randn(2, 50, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = 5 + 2 * target
    standard = (target - target.mean(1, keepdim=True)) / target.std(1, correction=0, keepdim=True)
    found = imitation(mapped, target)
    assert found.shape == (50,)
    torch.testing.assert_close(found.double(), (mapped - standard).square().mean(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(imitation(target * 0, target), torch.ones(50), rtol=1e-4, atol=1e-4)  # knowing nothing costs one


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([["large"], ["medium"], ["small"]], ("small", "large", "medium")),
        ([["large", "medium"], ["small"]], ("small", "large", "medium")),
        ([["huge"], ["large"], ["medium"], ["small"]], ("small", "huge", "medium")),
    ],
)
def test_after_a_pyramid_the_apex_teaches_and_the_level_above_the_student_assists(levels, expected):
    assert tuple(roles(levels)[role] for role in ("student", "teacher", "assistant")) == expected


def test_a_pyramid_without_an_assistant_cannot_be_refined():
    with pytest.raises(UserError, match="refinement wants a teacher and an assistant above small, got \\[\\['large'\\]"):
        roles([["large"], ["small"]])


VOICES = {"teacher": "teacher", "assistant": "assistant", "itself": "student"}


def coupled(trio, data):
    return collate_with_teachers(data, {voice: choice_logprobs(trio[role], role, data, shifted=True) for voice, role in VOICES.items()})


def test_a_student_of_another_width_learns_to_meet_the_teachers_states(trio, examples, pictures):
    assert trio["student"].head.shape[1] != trio["teacher"].head.shape[1]
    data = training_set(examples[:6], pictures, **trio)
    step = TernaryStep(**trio, teachers=dict.fromkeys(VOICES, 0.0), labels=0.0, relation_weight=0.0, hidden_weight=1.0, **HOW)
    history = train(step, coupled(trio, data), 6, Schedule(50, 6, 1e-2), seed=0)
    assert history[-1]["hidden"] < 0.5 * history[0]["hidden"]
    assert not any("map" in name for name in trio["student"].model.state_dict())


def test_the_finer_terms_are_those_of_each_example_alone_and_move_the_student_only(trio, examples, pictures):
    wide = trio | {"assistant": tiny_vlm(64, 1, 4)}
    data = training_set(examples[:6], pictures, **wide)
    step = TernaryStep(**wide, teachers={}, labels=0.0, relation_weight=0.5, hidden_weight=0.25, **HOW)
    collate = coupled(wide, data)
    batch = collate(range(6))
    parts = step(batch)
    assert [(parts[name].weight, parts[name].per) for name in ("relations", "hidden")] == [(0.5, "examples"), (0.25, "examples")]
    states = {name: answer_hidden(v, batch, name)[1].last_hidden_state.detach().double() for name, v in wide.items()}
    relation = hidden = 0.0
    for row in range(6):
        image = batch["input_ids"][row] == wide["student"].image_token_id
        words = batch["attention_mask"][row].bool() & ~image
        places = [*image.nonzero().flatten().tolist(), int(batch["asked"][row].nonzero()[0])]
        cosine = {n: torch.cosine_similarity(s[row, places][:, None], s[row, places][None], dim=-1) for n, s in states.items()}
        relation += float((cosine["student"] - cosine["assistant"]).square().mean())
        target = states["teacher"][row, words]
        standard = (target - target.mean(1, keepdim=True)) / target.std(1, correction=0, keepdim=True)
        hidden += float((states["student"][row, words] @ step.map.weight.double().T - standard).square().mean().detach())
    assert float(parts["relations"].total.detach()) == pytest.approx(relation, rel=1e-3)
    assert float(parts["hidden"].total.detach()) == pytest.approx(hidden, rel=1e-3)
    halves = [step(collate(indices)) for indices in (range(2), range(2, 6))]  # a batch's company changes nothing
    for name in ("relations", "hidden"):
        assert sum(float(half[name].total.detach()) for half in halves) == pytest.approx(
            float(parts[name].total.detach()), rel=1e-3
        )
        step.zero_grad()
        parts[name].total.backward(retain_graph=True)
        moved = {n for n, v in wide.items() if any(p.grad is not None and p.grad.any() for p in v.model.parameters())}
        assert moved == {"student"}


class Widest(TorchDispatchMode):
    """The most positions of which logits over the whole vocabulary are made in its scope."""

    def __init__(self, vocabulary):
        super().__init__()
        self.vocabulary, self.positions = vocabulary, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        # Matrix products alone: an embedding's gradient has the vocabulary's rows, and is no logit.
        if (
            function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm)
            and result.shape[-1] == self.vocabulary
        ):
            self.positions = max(self.positions, result.shape[:-1].numel())
        return result


def test_only_answer_positions_ever_meet_the_head(trio, examples, pictures):
    data = training_set(examples[:6], pictures, **trio)
    batch = coupled(trio, data)(range(6))
    pair = {"teacher": trio["teacher"]}, {"student": trio["student"]}
    objectives = [
        Supervised(trio["student"]),
        Distillation(trio["student"], {"teacher": 0.5}, labels=0.5, **HOW),
        TernaryStep(**trio, teachers=dict.fromkeys(VOICES, 1.0), labels=0.5, relation_weight=1.0, hidden_weight=1.0, **HOW),
        PyramidStep(*pair, down=1.0, feedback=0.1, peers=0.0, **HOW),
    ]
    for objective in objectives:
        with Widest(len(trio["student"].head)) as widest:
            objective(batch)
        assert widest.positions == batch["tokens"] < batch["input_ids"].numel() / 4


def test_ternary_parts_are_gated_and_models_that_no_term_looks_into_stay_out_of_the_step(trio, examples, pictures):
    data = training_set(examples[:6], pictures, **trio)
    batch = coupled(trio, data)(range(6))
    teachers = dict.fromkeys(VOICES, 1.0)
    gated, open_ = (
        TernaryStep(**trio, teachers=teachers, labels=0.5, gate=gate, relation_weight=1.0, hidden_weight=1.0, **HOW)(batch)
        for gate in (True, False)
    )
    assert set(gated) == {"labels", *VOICES, "relations", "hidden"}
    assert all(gated[voice].total < open_[voice].total for voice in ("teacher", "assistant"))
    plain = TernaryStep(**trio, teachers=teachers, labels=0.5, gate=True, relation_weight=0.0, hidden_weight=0.0, **HOW)
    assert set(plain.vlms) == {"student"} and set(plain(batch)) == {"labels", *VOICES}
    with pytest.raises(UserError, match="weights: expected none below 0.*relations -1"):
        TernaryStep(**trio, teachers=teachers, labels=0.5, relation_weight=-1.0, hidden_weight=0.0, **HOW)
