"""What distillation costs beside its parts: `python benchmarks/distillation.py`.

Teacher and student are LLaVAs with random weights over one vocabulary. The ways take turns on the same machine, so the ratios count:
a step of distillation over the teacher's forward pass and the student's step on labels, a step of the pyramid over both models' steps, and a
teacher that is asked once over one that is asked at every step.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from scoring import VISUAL_TOKENS, build_llava

from hkd_core.hkd import PyramidSettings
from hkd_core.hkd.pyramid import PyramidStep
from hkd_core.models import VLM
from hkd_core.models.vlm import Encoded
from hkd_core.training.examples import TrainingSet, answer_hidden, project
from hkd_core.training.objectives import Distillation, Supervised
from hkd_core.training.teacher_answers import choice_logprobs, collate_with_teachers
from hkd_core.world.small_models import build_processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs=2, default=(512, 256), metavar=("TEACHER", "STUDENT"))
    parser.add_argument("--layers", type=int, nargs=2, default=(6, 3), metavar=("TEACHER", "STUDENT"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=0, help="rows of the heads, at least; 0: the built-in world's")
    parser.add_argument(
        "--answer-tokens", type=int, default=1, help="of each example of the pyramid, which distils all of them over all words"
    )
    parser.add_argument("--epochs", type=int, default=3, help="how often the student sees each example, for the last line")
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    pair = zip(("teacher", "student"), args.widths, args.layers, strict=True)
    vlms = {name: VLM(build_llava(width, layers, args.vocabulary), build_processor()) for name, width, layers in pair}
    start = vlms["student"].prepare([torch.zeros(64, 64, 3).byte().numpy()])["input_ids"][0][:1]
    features = {
        name: {"picture": Encoded([*start, *[vlm.image_token_id] * VISUAL_TOKENS], torch.randn(VISUAL_TOKENS, vlm.head.shape[1]))}
        for name, vlm in vlms.items()
    }
    row = {
        "image_id": "picture",
        "task": "",
        "prompt": "Is there a dog in the image?",
        "answer": "Yes",
        "choices": ["Yes", "No"],
        "meta": {},
    }
    data = TrainingSet({"student": vlms["student"], "teacher": vlms["teacher"]}, [row] * args.batch, features)
    batch = collate_with_teachers(data, {"teacher": choice_logprobs(vlms["teacher"], "teacher", data)})(range(args.batch))
    supervised = Supervised(vlms["student"])
    apex = Supervised(vlms["teacher"])
    long = row | (
        {"answer": " ".join(["dog"] * (args.answer_tokens - 1)), "choices": []} if args.answer_tokens > 1 else {}
    )  # and an end
    rows = [long] * args.batch
    both_batch = TrainingSet({"student": vlms["student"], "teacher": vlms["teacher"]}, rows, features).collate(range(args.batch))
    apex_batch = TrainingSet({"student": vlms["teacher"]}, rows, {"student": features["teacher"]}).collate(range(args.batch))
    upper, lower = {"teacher": vlms["teacher"]}, {"student": vlms["student"]}
    pyramid = PyramidStep(upper, lower, PyramidSettings(steps=1, divergence="jsd"))
    distillation = Distillation(vlms["student"], {"teacher": 0.5}, label_weight=0.5, kind="jsd", beta=0.5, temperature=2.0)

    def backward(objective: torch.nn.Module, batch: dict = batch) -> None:
        sum(term.weight * term.total for term in objective(batch).values()).backward()
        objective.zero_grad()

    @torch.no_grad()
    def teacher_forward() -> None:
        project(vlms["teacher"], answer_hidden(vlms["teacher"], batch, "teacher")[0])

    ways: dict[str, Callable] = {
        "teacher, forward": teacher_forward,
        "student, a step on labels": lambda: backward(supervised),
        "student, a step of distillation": lambda: backward(distillation),
        "teacher, a step on long labels": lambda: backward(apex, apex_batch),
        "student, a step on long labels": lambda: backward(supervised, both_batch),
        "both, a step of the pyramid": lambda: backward(pyramid, both_batch),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(args.turns + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - begun)
    for name, values in seconds.items():
        print(f"{name:31} {min(values):6.3f} s")
    turns = list(zip(*seconds.values(), strict=True))
    once = statistics.median((forward + taught) / (forward + step) for forward, step, taught, *_ in turns)
    print(f"distillation costs {once:.3f} times its two parts")
    together = statistics.median(both / (one + other) for *_, one, other, both in turns)
    print(
        f"the pyramid costs {together:.3f} times both models' steps on the same labels, of {both_batch['tokens']} tokens in {len(vlms['student'].head)}"
    )
    saved = statistics.median(
        (forward + args.epochs * taught) / (args.epochs * (forward + taught)) for forward, _, taught, *_ in turns
    )
    print(f"a teacher that is asked once costs {saved:.3f} times one that is asked at every step, over {args.epochs} epochs")


if __name__ == "__main__":
    main()
