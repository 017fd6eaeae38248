"""Memory and time of the distillation losses, side by side: hidden states and heads in, loss and gradient out.

    python benchmarks/losses.py                              # both sizes, every implementation, a Markdown table
    python benchmarks/losses.py --sizes 512x32000 --repeats 9

Width 512, the head frozen, forward and backward. Time is the smallest of the repeats, relative to dense forward KL
written with torch's own functions. The implementations take turns, so that a busy machine slows all of them alike.
Memory is the peak beyond the inputs. On a CPU it is the resident set of a child process that does nothing else, on CUDA
the allocator's. TRL and Liger take part where they are installed. The two sizes take about three minutes on two cores.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch.nn.functional import kl_div, log_softmax

from hkd_core.losses import divergence, linear_divergence
from hkd_core.losses.formulas import plain_divergence

WIDTH = 512
BASELINE = "forward KL, dense, torch"


def forward_kl_dense(student_hidden, student_head, teacher_hidden, teacher_head):
    student = log_softmax(student_hidden @ student_head.T, -1)
    teacher = log_softmax(teacher_hidden @ teacher_head.T, -1)
    return kl_div(student, teacher, reduction="sum", log_target=True)


def jsd_formula(student_hidden, student_head, teacher_hidden, teacher_head):
    return plain_divergence(student_hidden @ student_head.T, teacher_hidden @ teacher_head.T, kind="jsd").sum()


def ours_dense(kind: str) -> Callable:
    def loss(student_hidden, student_head, teacher_hidden, teacher_head):
        return divergence(student_hidden @ student_head.T, teacher_hidden @ teacher_head.T, kind=kind)[0]

    return loss


def ours_chunked(kind: str, chunk: int) -> Callable:
    def loss(*inputs):
        return linear_divergence(*inputs, kind=kind, chunk=chunk)[0]

    return loss


def implementations(chunk: int) -> dict[str, Callable]:
    """Name -> function of (student_hidden, student_head, teacher_hidden, teacher_head) that returns the loss."""
    found = {
        BASELINE: forward_kl_dense,
        "JSD, dense, its formula": jsd_formula,
        "JSD, `divergence`": ours_dense("jsd"),
        "JSD, `linear_divergence`": ours_chunked("jsd", chunk),
        "forward KL, `linear_divergence`": ours_chunked("forward_kl", chunk),
        "reverse KL, `linear_divergence`": ours_chunked("reverse_kl", chunk),
        "skewed reverse KL, `linear_divergence`": ours_chunked("skewed_reverse_kl", chunk),
    }
    try:
        from trl.experimental.gkd import GKDTrainer
        from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

        def trl_dense(student_hidden, student_head, teacher_hidden, teacher_head):
            logits = student_hidden @ student_head.T, teacher_hidden @ teacher_head.T
            return GKDTrainer.generalized_jsd_loss(*logits, reduction="sum")

        def trl_chunked(student_hidden, student_head, teacher_hidden, teacher_head):
            each, _ = ChunkedDivergenceFunction.apply(student_hidden, student_head, None, teacher_hidden, teacher_head, None, 0.5)
            return each.sum()

        found |= {"JSD, dense, TRL": trl_dense, "JSD, chunked, TRL": trl_chunked}
    except ImportError as error:
        print(f"TRL left out: {error}", file=sys.stderr)
    try:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

        liger_loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, compiled=False)

        def liger(student_hidden, student_head, teacher_hidden, teacher_head):
            labels = torch.zeros(len(student_hidden), dtype=torch.long, device=student_hidden.device)
            return liger_loss(student_hidden, student_head, teacher_hidden, teacher_head, labels)

        found["JSD, chunked, Liger"] = liger
    except ImportError as error:
        print(f"Liger left out: {error}", file=sys.stderr)
    return found


def make_inputs(tokens: int, vocabulary: int, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    student_hidden, teacher_hidden = (torch.randn(tokens, WIDTH, device=device).to(dtype) for _ in range(2))
    student_head, teacher_head = (torch.randn(vocabulary, WIDTH, device=device, dtype=dtype).mul_(WIDTH**-0.5) for _ in range(2))
    return [student_hidden.requires_grad_(), student_head, teacher_hidden, teacher_head]


def step(loss: Callable, inputs: list[torch.Tensor]) -> float:
    """Seconds of one forward and backward pass."""
    inputs[0].grad = None
    start = time.perf_counter()
    loss(*inputs).backward()
    if inputs[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(loss: Callable, inputs: list[torch.Tensor]) -> float:
    """MiB beyond what the process held before, in a process that has computed nothing large yet."""
    if inputs[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(loss, inputs)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(loss, inputs)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit / 2**20


def in_child(options: argparse.Namespace, task: str, size: str) -> dict[str, float]:
    """Run this script again for one `task` and read the JSON that it prints."""
    command = [sys.executable, __file__, "--sizes", size, "--task", task]
    for name in ("repeats", "chunk", "threads", "device", "dtype"):
        command += [f"--{name}", str(getattr(options, name))]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def run_task(options: argparse.Namespace, losses: dict[str, Callable]) -> dict[str, float]:
    """In the child: the times of all implementations, or the memory of one."""
    torch.set_num_threads(options.threads)
    tokens, vocabulary = map(int, options.sizes[0].split("x"))
    inputs = make_inputs(tokens, vocabulary, options.device, getattr(torch, options.dtype))
    if options.task == "time":
        rounds = [{name: step(loss, inputs) for name, loss in losses.items()} for _ in range(options.repeats + 1)]
        return {name: min(each[name] for each in rounds[1:]) for name in losses}
    # A small pass first, so that thread pools and code pages are not counted.
    step(losses[options.task], make_inputs(4, 16, options.device, getattr(torch, options.dtype)))
    return {options.task: peak_memory(losses[options.task], inputs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["512x32000", "256x151936"], help="tokens x vocabulary")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds, after one for warming up")
    parser.add_argument("--chunk", type=int, default=64, help="of linear_divergence")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()

    losses = implementations(options.chunk)
    if options.task:
        print(json.dumps(run_task(options, losses)))
        return
    for size in options.sizes:
        seconds = in_child(options, "time", size)
        print(f"\n{size}, width {WIDTH}, {options.dtype}, {options.device}, {options.threads} threads, ", end="")
        print(f"baseline {seconds[BASELINE]:.2f} s\n\n| loss | peak memory, MiB | time, relative |\n|-|-:|-:|")
        for name in losses:
            memory = in_child(options, name, size)[name]
            print(f"| {name} | {memory:.0f} | {seconds[name] / seconds[BASELINE]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
