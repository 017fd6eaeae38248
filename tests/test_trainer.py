"""The training loop, against what its formulas give by hand."""

import json
import os
import subprocess
import sys

import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import tiny_vlm, training_set
from torch import nn

from hkd_core.common.errors import UserError
from hkd_core.losses import divergence
from hkd_core.training.examples import answer_hidden, project
from hkd_core.training.objectives import ModelGroup, Supervised
from hkd_core.training.trainer import LossTerm, Schedule, shuffled, train


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


def test_the_loop_finds_the_line_and_logs_what_it_did():
    model = Line()
    history = train(model, lines, 30, Schedule(200, 8, 0.2, weight_decay=0), seed=0)
    assert model.weight.item() == pytest.approx(2, abs=0.05)
    assert [record["step"] for record in history] == list(range(4, 201, 4))
    assert history[-1]["squares"] < history[0]["squares"]


def test_a_loss_that_is_not_finite_stops_with_step_parts_and_examples():
    class Broken(Line):
        def forward(self, batch):
            return {"squares": LossTerm(self.weight.sum() * float("nan"))}

    with pytest.raises(UserError, match=r"step 0: the loss is not finite \(squares nan\); examples: \d, \d, \d$"):
        train(Broken(), lines, 9, Schedule(3, 3, 0.1), seed=0)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_stops_before_it_reaches_a_weight_even_in_the_last_step(clip):
    class Steep(Line):
        def forward(self, batch):
            return {"root": LossTerm((self.weight * 0).sqrt().sum() + self.weight.sum())}  # finite, its slope is not

    model, fed = Steep(), []

    def collate(indices):
        fed.append(indices)
        return lines(indices) | {"ids": [f"picture {i}" for i in indices]}

    with pytest.raises(UserError) as error:
        train(model, collate, 9, Schedule(1, 2, 0.1, clip=clip, accumulate=2), seed=0)
    assert model.weight.item() == 0
    names = ", ".join(f"picture {i}" for i in (*fed[0], *fed[1]))
    assert str(error.value) == f"training: step 0: the gradient is not finite (root 0); examples: {names}"


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
    printed = [line for line in both.stdout.splitlines() if line.startswith("[[")]  # torch 2.9 also says who is connected
    assert 5 < len(history) < 40 and len(printed) == 2
    for line in printed:
        logged, learned = json.loads(line)
        assert learned == pytest.approx(weight, rel=1e-5)
        assert [r["squares"] for r in logged] == pytest.approx([r["squares"] for r in history], rel=1e-4, abs=1e-5)


def test_a_divergence_that_is_infinite_stops_with_the_examples_names(vlm, examples, pictures):
    class Ruled(ModelGroup):
        def forward(self, batch):
            logits = project(self.vlms["student"], answer_hidden(self.vlms["student"], batch, "student")[0])
            impossible = torch.full_like(logits, -torch.inf).index_fill(1, torch.tensor([0]), 0.0)
            return {"purified": LossTerm(divergence(logits, impossible, kind="reverse_kl")[0])}

    data = training_set(examples[:4], pictures, student=vlm)
    with pytest.raises(UserError, match="ruled: step 0: reverse_kl is infinite.*; examples: ") as error:
        train(Ruled({"student": vlm}), data.collate, 4, Schedule(1, 4, 0.1), seed=0, title="ruled")
    named = str(error.value).rpartition("; examples: ")[2].split(", ")
    assert sorted(named) == sorted(f"{row['image_id']} {row['task']}" for row in examples[:4])


def test_having_nothing_to_train_or_nothing_to_train_on_is_an_error():
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
