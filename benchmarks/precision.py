"""bf16 against float32 on this machine, in turns: Muon's Newton-Schulz and a training step: `python benchmarks/precision.py`.

At the sizes of the laptop's largest model on short exercises. The ratio counts: `hkd_core/common/precision.py` must choose the faster of the two.
On a CPU with bf16 units `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2` emulates one without.
"""

import argparse
import os
import statistics
import time

import torch
from torch.nn import functional as F

from hkd_core.common import precision
from hkd_core.training.muon import Muon, orthogonalised
from hkd_core.world.small_models import build_model, vision_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=97)
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = str(precision.fast_dtype(device)).removeprefix("torch.")
    torch.manual_seed(0)
    matrices = torch.randn(4 * args.layers, args.width, args.width, device=device)
    model = build_model(vision_config(64, 2), args.width, args.layers).to(device)
    language, head = model.model.language_model, model.get_output_embeddings()
    words = torch.randint(head.weight.shape[0], (args.rows, args.tokens), device=device)
    optimizer = Muon([p for p in language.layers.parameters() if p.ndim == 2], lr=1e-3, weight_decay=0.01)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision.fast_dtype(device) == torch.bfloat16):
            loss = F.cross_entropy(head(language(words).last_hidden_state)[:, :-1].flatten(0, 1).float(), words[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    parts = {"Newton-Schulz": lambda: orthogonalised(matrices), "training step": step}
    seconds: dict[tuple[str, str], list[float]] = {(part, word): [] for part in parts for word in ("bf16", "float32")}
    for turn in range(args.turns + 1):
        for (part, word), values in seconds.items():
            os.environ[precision.SETTING] = word
            began = time.perf_counter()
            parts[part]()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first warms up
                values.append(time.perf_counter() - began)
    for part in parts:
        bf16, float32 = (seconds[part, word] for word in ("bf16", "float32"))
        ratio = statistics.median(a / b for a, b in zip(bf16, float32, strict=True))
        times = f"bf16 {1000 * min(bf16):7.1f} ms, float32 {1000 * min(float32):7.1f} ms"
        print(f"{part:14} {times}, bf16 over float32 {ratio:.2f}; chosen here: {chosen}")


if __name__ == "__main__":
    main()
