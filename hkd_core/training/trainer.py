"""The one training loop. What is minimised is an objective plugged into it; what it knows is steps, batches and optimisers.

An objective is a module that holds every model it needs and maps a batch to named terms of the loss. Being a module it
can be wrapped for many devices; frozen members simply have no parameters that require a gradient.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from hkd_core.common.errors import UserError
from hkd_core.common.precision import fast_dtype
from hkd_core.common.progress import progress
from hkd_core.losses import InfiniteDivergence
from hkd_core.models.vlm import to_device
from hkd_core.training.checkpoints import Checkpoints
from hkd_core.training.muon import Muon

COUNTS = ("tokens", "labelled", "examples")  # of a batch: answer tokens, those with a label, examples


@dataclass(frozen=True)
class LossTerm:
    """One term of the loss: `total` summed over the batch, to be divided by the global count of what it is `per`."""

    total: Tensor
    weight: float = 1.0
    per: str = "tokens"  # one of COUNTS


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. learning_rate: the peak, after `warmup` (share of the steps) and before `decay` (share) to 0.

    optimizer: "adamw", or "muon" for the matrices of the layers (arXiv 2502.16982) and AdamW for the rest. Muon learns the small
    models' look-up circuits in about two thirds of the steps. The matrices' rate is then `matrix_rate` times higher.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: float = 0.05
    decay: float = 0.5
    weight_decay: float = 0.01
    accumulate: int = 1
    clip: float = 1.0
    optimizer: str = "adamw"
    matrix_rate: float = 3.0

    def rate(self, step: int) -> float:
        """The learning rate of a step (counted from 0) over the peak."""
        done = (step + 1) / self.steps
        return min(1.0, done / max(self.warmup, 1 / self.steps), max(0.0, (1 - done) / self.decay + 1 / self.steps))


def make_optimizers(objective: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Optimisers over what requires a gradient; weight decay on matrices alone. Raises UserError for an unknown one."""
    if schedule.optimizer not in ("adamw", "muon"):
        raise UserError(f'optimizer: expected "adamw" or "muon", got "{schedule.optimizer}"')
    named = [(name, p) for name, p in objective.named_parameters() if p.requires_grad]
    by_muon = [p for name, p in named if schedule.optimizer == "muon" and p.ndim == 2 and "layers." in name]
    chosen = {id(p) for p in by_muon}
    rest = [p for _, p in named if id(p) not in chosen]
    rate, decay = schedule.learning_rate, schedule.weight_decay
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": decay, "peak": rate},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0, "peak": rate},
    ]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)]
    if by_muon:
        peak = rate * schedule.matrix_rate
        found.append(Muon([{"params": by_muon, "peak": peak}], lr=peak, weight_decay=decay))
    return found


def shuffled(count: int, batch_size: int, steps: int, seed: int, lengths: Sequence[int] | None = None) -> list[list[int]]:
    """Index lists of `steps` batches: epochs in random order; with `lengths`, examples of like length share a batch."""
    generator = torch.Generator().manual_seed(seed)
    batches: list[list[int]] = []
    order: list[int] = []
    while len(batches) < steps:
        while len(order) < 16 * batch_size:
            order += torch.randperm(count, generator=generator).tolist()
        chunk, order = order[: 16 * batch_size], order[16 * batch_size :]
        if lengths is not None:
            chunk.sort(key=lambda i: lengths[i])
        groups = [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
        batches += [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
    return batches[:steps]


def shown(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def refusal(what: str, fed: Sequence[tuple[list[int], dict]]) -> UserError:
    """`what` is wrong, and the examples of these (indices, batch), by name or by place where they have none."""
    names = [str(name) for indices, batch in fed for name in batch.get("ids", indices)]
    return UserError(f"{what}; examples: {', '.join(names)}")


def current_accelerator() -> Accelerator:
    """On the GPU if there is one, in the precision of `fast_dtype`, which may have changed since the last training of this process."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mixed = "bf16" if fast_dtype(device) == torch.bfloat16 else "no"
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=mixed, cpu=device == "cpu")


def backward(model: nn.Module, fed: Sequence[tuple[list[int], dict]], accelerator: Accelerator, where: str) -> dict[str, float]:
    """Add the gradient of one step's micro-batches, as (indices, batch); returns each term over its global count. `where`: for errors."""
    known = [name for name in COUNTS if name in fed[0][1]]
    local = torch.tensor([[b[name] for name in known] for _, b in fed], dtype=torch.float64, device=accelerator.device).sum(0)
    counts = dict(zip(known, accelerator.reduce(local).tolist(), strict=True))
    values: dict[str, float] = {}
    for indices, batch in fed:
        try:
            with accelerator.autocast():
                terms = model(batch)
        except InfiniteDivergence as error:
            raise refusal(f"{where}: {error}", [(indices, batch)]) from error
        loss = sum(term.weight * term.total / max(counts[term.per], 1) for term in terms.values())
        for name, term in terms.items():
            values[name] = values.get(name, 0.0) + float(term.total.detach()) / max(counts[term.per], 1)
        if not math.isfinite(float(loss.detach())):
            raise refusal(f"{where}: the loss is not finite ({shown(values)})", [(indices, batch)])
        # DDP averages over processes; the counts are global already.
        accelerator.backward(loss * accelerator.num_processes)
    return values


def train(
    objective: nn.Module,
    collate: Callable[[list[int]], dict],
    count: int,
    schedule: Schedule,
    *,
    seed: int,
    lengths: Sequence[int] | None = None,
    title: str = "training",
    callback: Callable[[int], None] | None = None,
    until: float = 0.0,
) -> list[dict]:
    """Minimise the objective's terms over `count` examples; returns one record a logged step.

    collate: indices -> batch, a dict with those COUNTS that the objective's terms are divided by. They are summed over all
    micro-batches and processes of a step before anything is divided, so that `accumulate` changes nothing.
    callback: called with the step's number after every step; a training that resumes calls it once, for the last step that was done.
    until: stop before the last step once the logged sum of terms is below this.
    Raises UserError if the loss or its gradient is not finite, naming step, terms and examples, before any weight is touched.
    """
    accelerator = current_accelerator()
    torch.manual_seed(seed)
    trainable = [p for p in objective.parameters() if p.requires_grad]
    if not trainable:
        raise UserError(f"{title}: nothing to train: no parameter of the objective requires a gradient")
    if count < 1:
        raise UserError(f"{title}: nothing to train on: no examples")
    model, *optimizers = accelerator.prepare(objective, *make_optimizers(objective, schedule))
    model.train()
    world, rank = accelerator.num_processes, accelerator.process_index
    batches = shuffled(count, schedule.batch_size, schedule.steps * schedule.accumulate * world, seed, lengths)
    history: list[dict] = []
    sums: dict[str, float] = {}
    every = max(1, schedule.steps // 50)

    def about() -> list:
        machine = (accelerator.mixed_precision, torch.get_num_threads(), torch.__version__)
        return [schedule, seed, count, lengths, until, machine, [collate(indices) for indices in (batches[0], batches[-1])]]

    kept = Checkpoints(title, objective, optimizers, about, active=world == 1)  # shards of many processes are not kept yet
    begin, before = kept.resume()
    history, sums = before.get("history", history), before.get("sums", sums)
    if begin and callback is not None:
        callback(begin - 1)
    bar = progress(range(begin, schedule.steps), desc=title, unit="step", disable=not accelerator.is_main_process)
    for step in bar:
        first, where = step * schedule.accumulate * world, f"{title}: step {step}"
        mine = [batches[first + k * world + rank] for k in range(schedule.accumulate)]
        fed = [(indices, to_device(collate(indices), accelerator.device)) for indices in mine]
        values = backward(model, fed, accelerator, where)
        norm = accelerator.clip_grad_norm_(trainable, schedule.clip or math.inf)
        if not math.isfinite(float(norm)):
            raise refusal(f"{where}: the gradient is not finite ({shown(values)})", fed)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * schedule.rate(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value
        if (step + 1) % every == 0:
            mean = torch.tensor(list(sums.values()), dtype=torch.float64, device=accelerator.device) / every
            whole = accelerator.reduce(mean).tolist()  # each process has seen its own examples' share of the totals
            record = {"step": step + 1, **{name: round(value, 6) for name, value in zip(sums, whole, strict=True)}}
            history.append(record)
            sums = {}
            bar.set_postfix_str(" ".join(f"{name} {value:.3f}" for name, value in record.items() if name != "step"))
        if callback is not None:
            callback(step)
        if (step + 1) % every == 0 and sum(value for name, value in history[-1].items() if name != "step") < until:
            break
        kept.save(step + 1, {"history": history, "sums": sums})
    kept.save(schedule.steps, {"history": history, "sums": sums}, last=True)
    objective.eval()
    return history
