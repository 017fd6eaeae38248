"""Time of a layer's attention, forward and backward, by the ways there are: `python benchmarks/attention.py`.

At the laptop models' sizes (32 rows, 97 tokens, 10 heads of 16) under bf16 autocast, in turns. The ratio counts.
"""

import argparse
import statistics
import time

import torch
from torch import nn
from transformers.models.llama.modeling_llama import eager_attention_forward

from hkd_core.models.attention import plain_attention


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=97)
    parser.add_argument("--heads", type=int, default=10)
    parser.add_argument("--turns", type=int, default=30)
    args = parser.parse_args()
    torch.manual_seed(0)
    shape = (args.rows, args.heads, args.tokens, 16)
    q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
    causal = torch.ones(args.tokens, args.tokens, dtype=torch.bool).tril()
    mask = torch.zeros(1, 1, *causal.shape).masked_fill(~causal, torch.finfo(torch.float32).min)
    module = nn.Module()
    module.num_key_value_groups = 1
    ways = {
        "plain": lambda: plain_attention(module, q, k, v, mask, 0.25)[0],
        "transformers' eager": lambda: eager_attention_forward(module, q, k, v, mask, 0.25)[0],
        "torch's fused kernel": lambda: nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(args.turns + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = way()
            out.backward(torch.ones_like(out))
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - begun)
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, seconds["plain"], strict=True))
        print(f"{name:22} {1000 * min(values):6.1f} ms, {ratio:.1f} times plain")


if __name__ == "__main__":
    main()
