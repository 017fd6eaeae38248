"""Answers per second with each picture read once, against one question at a time: `python benchmarks/scoring.py`.

A LLaVA of random weights at LLaVA-1.5's geometry (576 visual tokens, 6 questions a picture). Both ways take turns on the same
machine, with features of the pictures at hand; the ratio is what counts.
"""

import argparse
import time

import torch
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from hkd_core.inference.shared_prefix import last_states
from hkd_core.models import VLM
from hkd_core.models.vlm import Encoded
from hkd_core.world.objects import OBJECTS
from hkd_core.world.small_models import build_processor, vision_config
from hkd_core.world.vocabulary import IMAGE

VISUAL_TOKENS, QUESTIONS = 576, 6


def build_llava(width: int, layers: int, vocabulary: int = 0) -> LlavaForConditionalGeneration:
    """LLaVA-1.5's shape, only smaller: heads of 64, an MLP of 2.7 times the width, torch's own attention. vocabulary: at least."""
    words = build_processor().tokenizer
    text = LlamaConfig(
        vocab_size=max(vocabulary, len(words)),
        hidden_size=width,
        intermediate_size=int(2.7 * width) // 64 * 64,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=2048,
    )
    image = words.convert_tokens_to_ids(IMAGE)
    config = LlavaConfig(vision_config=vision_config(64, 1), text_config=text, image_token_index=image)
    model = LlavaForConditionalGeneration(config).eval()
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    vlm = VLM(build_llava(args.width, args.layers), build_processor())
    start = vlm.prepare([torch.zeros(64, 64, 3).byte().numpy()])["input_ids"][0][:1]
    prefix = [*start, *[vlm.image_token_id] * VISUAL_TOKENS]
    pictures = [Encoded(prefix, torch.randn(VISUAL_TOKENS, args.width, device=vlm.device)) for _ in range(args.pictures)]
    asked = [(p, vlm.suffix(f"Is there a {name} in the image?")) for p in pictures for name in list(OBJECTS)[:QUESTIONS]]

    def one_by_one() -> list[torch.Tensor]:
        return [states for p, suffix in asked for _, states in last_states(vlm, [p], [suffix], [1])]

    def shared() -> list[torch.Tensor]:
        found = dict(last_states(vlm, [p for p, _ in asked], [suffix for _, suffix in asked], [1] * len(asked), batch_size=24))
        return [found[i] for i in range(len(asked))]

    with torch.no_grad():
        size = max(float(a.abs().max()) for a in one_by_one())
        worst = max(float((a - b).abs().max()) for a, b in zip(one_by_one(), shared(), strict=True))
        seconds = {"one by one": [], "picture read once": []}
        for _ in range(args.turns):
            for name, way in (("one by one", one_by_one), ("picture read once", shared)):
                begun = time.perf_counter()
                way()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                seconds[name].append(time.perf_counter() - begun)
    best = {name: min(values) for name, values in seconds.items()}
    for name, value in best.items():
        print(f"{name:18} {len(asked) / value:8.1f} answers a second")
    print(
        f"ratio {best['one by one'] / best['picture read once']:.2f}; largest difference of hidden states {worst:.1e}, of up to {size:.1f}"
    )


if __name__ == "__main__":
    main()
