"""Cost of a distillation step over its parts, the teacher's forward pass and the student's step on labels: `python benchmarks/distillation.py`.

Teacher and student are LLaVAs of random weights over one vocabulary; the three take turns on the same machine. The ratio counts: what a
divergence adds to what cannot be avoided.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from scoring import VISUAL_TOKENS, build_llava

from hkd_core.distill.examples import TrainingSet, answer_hidden, project
from hkd_core.distill.objectives import Distillation, Supervised
from hkd_core.models import VLM
from hkd_core.models.small import build_processor
from hkd_core.models.vlm import Encoded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs=2, default=(512, 256), metavar=("TEACHER", "STUDENT"))
    parser.add_argument("--layers", type=int, nargs=2, default=(6, 3), metavar=("TEACHER", "STUDENT"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    pair = zip(("teacher", "student"), args.widths, args.layers, strict=True)
    vlms = {name: VLM(build_llava(width, layers), build_processor()) for name, width, layers in pair}
    start = vlms["student"].prepare([torch.zeros(64, 64, 3).byte().numpy()])["input_ids"][0][:1]
    looks = {
        name: {"picture": Encoded([*start, *[vlm.image_token_id] * VISUAL_TOKENS], torch.randn(VISUAL_TOKENS, vlm.head.shape[1]))}
        for name, vlm in vlms.items()
    }
    row = {"image_id": "picture", "prompt": "Is there a dog in the image?", "answer": "Yes", "choices": ["Yes", "No"]}
    data = TrainingSet({"student": vlms["student"], "teacher": vlms["teacher"]}, [row] * args.batch, looks)
    batch = data.collate(range(args.batch))
    supervised = Supervised(vlms["student"])
    distillation = Distillation(vlms["student"], vlms["teacher"], kind="jsd", beta=0.5, temperature=2.0, weight=0.5)

    def backward(objective: torch.nn.Module) -> None:
        sum(part.weight * part.total for part in objective(batch).values()).backward()
        objective.zero_grad()

    @torch.no_grad()
    def teacher_forward() -> None:
        project(vlms["teacher"], answer_hidden(vlms["teacher"], batch, "teacher")[0])

    ways: dict[str, Callable] = {
        "teacher, forward": teacher_forward,
        "student, a step on labels": lambda: backward(supervised),
        "a step of distillation": lambda: backward(distillation),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(args.turns + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - begun)
    for name, values in seconds.items():
        print(f"{name:26} {min(values):6.3f} s")
    parts = zip(*seconds.values(), strict=True)
    ratio = statistics.median(whole / (forward + step) for forward, step, whole in parts)
    print(f"distillation costs {ratio:.3f} times its two parts")


if __name__ == "__main__":
    main()
