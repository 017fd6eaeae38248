"""Objectives on labels and on teachers' answers, each against its formula."""

import pytest
import torch
from conftest import training_set
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from hkd_core.common.errors import UserError
from hkd_core.hkd import PyramidSettings, TernarySettings
from hkd_core.hkd.pyramid import PyramidStep
from hkd_core.hkd.ternary import TernaryStep, ask_teachers
from hkd_core.inference.scoring import score_choices
from hkd_core.models import load_vlm
from hkd_core.training.examples import UNLABELLED, answer_hidden, project
from hkd_core.training.objectives import Distillation, Supervised, agreement
from hkd_core.training.teacher_answers import choice_logprobs, collate_with_teachers
from hkd_core.training.trainer import Schedule, train

HOW = {"kind": "forward_kl", "beta": 0.5, "temperature": 2.0}


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


def test_supervised_loss_equals_cross_entropy_by_hand(vlm, examples, pictures):
    data = training_set(examples[:6], pictures, student=vlm)
    batch = data.collate(range(6))
    found = Supervised(vlm)(batch)["labels"].total
    logp = project(vlm, answer_hidden(vlm, batch, "student")[0]).double().log_softmax(-1)
    expected = -sum(logp[k, label] for k, label in enumerate(batch["labels"]))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_an_example_without_a_label_asks_for_one_token_and_teaches_through_the_teachers_alone(trio, examples, pictures):
    data = training_set(examples[6:10] + [row | {"answer": ""} for row in examples[:6]], pictures, **trio)
    collate = collate_with_teachers(data, {"teacher": choice_logprobs(trio["teacher"], "teacher", data)})
    batch, alone, known = collate(range(10)), collate(range(4, 10)), collate(range(4))
    assert (alone["tokens"], alone["labelled"]) == (6, 0) and batch["labelled"] == known["tokens"] == known["labelled"]
    assert alone["asked"].int().argmax(1).tolist() == (alone["attention_mask"].sum(1) - 1).tolist()  # behind the prompt's last word
    assert alone["chosen"].tolist() == [UNLABELLED] * 6
    objective = Distillation(trio["student"], {"teacher": 0.5}, label_weight=0.5, **HOW)
    terms, of_known, of_alone = objective(batch), objective(known), objective(alone)
    torch.testing.assert_close(terms["labels"].total, of_known["labels"].total, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(terms["teacher"].total, of_known["teacher"].total + of_alone["teacher"].total, rtol=1e-4, atol=1e-4)
    assert of_alone["labels"].total == 0 and of_alone["teacher"].total > 0


def test_labels_count_per_labelled_token_however_many_examples_have_none(vlm, examples, pictures):
    hidden = [row | {"answer": ""} for row in examples[:6]]
    losses = []
    for rows in (examples[6:10], examples[6:10] + hidden):
        data = training_set(rows, pictures, student=vlm)
        losses.append(train(Supervised(vlm), data.collate, len(rows), Schedule(1, len(rows), 1e-9), seed=0)[0]["labels"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_plain_distillation_equals_the_formula_over_the_choices(trio, examples, pictures):
    data = training_set(examples[:6], pictures, **trio)
    answers = choice_logprobs(trio["teacher"], "teacher", data)
    objective = Distillation(trio["student"], {"teacher": 0.25}, label_weight=0.75, **HOW)
    batch = collate_with_teachers(data, {"teacher": answers})(range(6))
    terms = objective(batch)
    assert (terms["labels"].weight, terms["teacher"].weight) == (0.75, 0.25)
    logits = project(trio["student"], answer_hidden(trio["student"], batch, "student")[0]).double().detach()
    expected, begin = 0.0, 0
    for i, row in enumerate(data.examples):
        tokens = [trio["student"].tokenizer(choice)["input_ids"][0] for choice in row["choices"]]
        q = (logits[begin][tokens] / 2).log_softmax(-1)
        p = (answers[i, : len(tokens)].double() / 2).log_softmax(-1)
        expected += float(4 * (p.exp() * (p - q)).sum())
        begin += int(batch["asked"][i].sum())
    assert float(terms["teacher"].total.detach()) == pytest.approx(expected, rel=1e-4)
    sum(part.total for part in terms.values()).backward()
    assert any(p.grad is not None for p in trio["student"].model.parameters())


def test_weights_that_sum_to_nothing_and_a_gate_for_one_are_refused(vlm):
    with pytest.raises(UserError, match="labels 0, teacher 0"):
        Distillation(vlm, {"teacher": 0.0}, label_weight=0.0, **HOW)
    with pytest.raises(UserError, match="at least two models that can agree"):
        Distillation(vlm, {"teacher": 1.0}, label_weight=0.0, gate=True, **HOW)


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
    batch = collate_with_teachers(data, ask_teachers(trio, data))(range(6))
    pair = {"teacher": trio["teacher"]}, {"student": trio["student"]}
    objectives = [
        Supervised(trio["student"]),
        Distillation(trio["student"], {"teacher": 0.5}, label_weight=0.5, **HOW),
        TernaryStep(**trio, settings=TernarySettings(steps=1, relation_weight=1.0, hidden_weight=1.0)),
        PyramidStep(*pair, PyramidSettings(steps=1)),
    ]
    for objective in objectives:
        with Widest(len(trio["student"].head)) as widest:
            objective(batch)
        assert widest.positions == batch["tokens"] < batch["input_ids"].numel() / 4
