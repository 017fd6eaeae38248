"""Cost of an answer with the adapter and with contrastive decoding, relative to the bare model: `python benchmarks/adapter.py`.

A LLaVA of random weights, with LLaVA-1.5's depth and visual tokens, writes captions. The adapter is as large as the study's: four
layers of rank 64. The three ways take turns on the same machine, so that the ratio counts.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from scoring import VISUAL_TOKENS, build_llava

from hkd_core.inference import contrastive, generate
from hkd_core.models import VLM, HallucinationEliminationAdapter
from hkd_core.models.vlm import Encoded
from hkd_core.world.small_models import build_processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--adapter-layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    vlm = VLM(build_llava(args.width, args.layers), build_processor())
    vlm.model.generation_config.eos_token_id = None
    start = vlm.prepare([torch.zeros(64, 64, 3).byte().numpy()])["input_ids"][0][:1]
    prefix = [*start, *[vlm.image_token_id] * VISUAL_TOKENS]
    picture, other = (Encoded(prefix, torch.randn(VISUAL_TOKENS, args.width, device=vlm.device)) for _ in range(2))
    adapter = HallucinationEliminationAdapter(args.width, rank=args.rank, layers=args.adapter_layers).to(vlm.device)

    def plain() -> None:
        generate(vlm, ["Describe the image."], [picture], max_new_tokens=args.tokens)

    def adapted() -> None:
        adapter.attach(vlm.model)
        plain()
        adapter.detach()

    against_other = contrastive(vlm, [[other]], "shuffled", alpha=1.0, cutoff=0.1)

    def contrasted() -> None:
        generate(vlm, ["Describe the image."], [picture], max_new_tokens=args.tokens, processor=against_other)

    ways: dict[str, Callable] = {"bare model": plain, "with the adapter": adapted, "contrastive": contrasted}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(args.turns + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - begun)
    bare = seconds["bare model"]
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, bare, strict=True))
        print(f"{name:18} {min(values):6.3f} s an answer of {args.tokens} tokens, {ratio:.3f} times the bare model")
    share = sum(p.numel() for p in adapter.parameters()) / vlm.parameters_count()
    print(f"the adapter has {share:.2%} of the model's parameters")


if __name__ == "__main__":
    main()
