"""Checkpoints of a training that may be killed: written now and then, whole, with a checksum; the last two are kept.

They stand in the folder that HKD_CHECKPOINTS names, outside what DVC deletes. The runner of notebooks sets it for a stage of the pipeline,
and removes the folder when the stage has ended. Without it nothing is written. A training finds its checkpoint by its title,
schedule, seed, first weights, first and last batch, and by the settings of its objective. The runner names the folder by data and code.
"""

import contextlib
import dataclasses
import hashlib
import io
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from hkd_core.common.command import complain
from hkd_core.common.errors import UserError
from hkd_core.common.files import CHECKPOINTS, write_bytes

SECONDS = 20.0  # between two checkpoints
KEPT = 2


def pieces(value: object) -> Iterator[bytes]:
    """What tells a value from another: tensors to the bit, containers item by item, anything else by its `repr`."""
    if isinstance(value, torch.Tensor):
        yield f"{tuple(value.shape)} {value.dtype}".encode()
        yield value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield repr(key).encode()
            yield from pieces(value[key])
    elif isinstance(value, list | tuple):
        yield f"{len(value)}".encode()
        for item in value:
            yield from pieces(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from pieces(vars(value))
    else:
        yield re.sub(r" at 0x[0-9a-f]+", "", repr(value)).encode()


def fingerprint_of(*values: object) -> str:
    """A hash that two runs of the same training share, and other trainings do not."""
    found = hashlib.sha256()
    for value in values:
        for piece in pieces(value):
            found.update(f"{len(piece)} ".encode() + piece)
    return found.hexdigest()[:16]


def settings_of(objective: nn.Module) -> dict[str, object]:
    """The plain attributes of an objective and of its modules: numbers, texts, settings. Weights and hooks are no settings."""
    plain = (bool, int, float, str, tuple, list, dict, BaseModel)
    return {
        f"{name}.{key}": value
        for name, module in objective.named_modules()
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "training" and isinstance(value, plain)
    }


class Checkpoints:
    """Those of one training. objective: its trainable parameters and buffers are kept; optimizers: their states too.

    about: () -> what else tells this training from others of its title. active: False keeps nothing.
    """

    def __init__(self, title: str, objective: nn.Module, optimizers: Sequence[Any], about: Callable[[], object], *, active: bool = True):
        where = os.environ.get(CHECKPOINTS)
        self.objective, self.optimizers = objective, optimizers
        self.folder: Path | None = None
        self.saved = time.monotonic()
        if where and active:
            numbers = torch.get_rng_state(), random.getstate()
            everything = dict(objective.named_parameters()) | dict(objective.named_buffers())
            slug = re.sub("[^a-z0-9]+", "_", title.lower()).strip("_")
            self.folder = Path(where) / f"{slug}-{fingerprint_of(title, everything, settings_of(objective), about())}"
            torch.set_rng_state(numbers[0])  # making a batch may draw some
            random.setstate(numbers[1])

    def tensors(self) -> dict[str, torch.Tensor]:
        """What training changes, by name."""
        found = {name: p for name, p in self.objective.named_parameters() if p.requires_grad}
        return found | dict(self.objective.named_buffers())

    def files(self) -> list[Path]:
        """The newest last."""
        return sorted(self.folder.glob("step-*.pt")) if self.folder else []

    def resume(self) -> tuple[int, dict]:
        """(steps done, what `save` was given), with weights, optimisers and random numbers as they were then; (0, {}) without one.

        A corrupt checkpoint is named on stderr, and the one before it is used.
        """
        for path in reversed(self.files()):
            try:
                content = path.read_bytes()
                if hashlib.sha256(content[32:]).digest() != content[:32]:
                    raise UserError("its checksum is wrong")
                state = torch.load(io.BytesIO(content[32:]), weights_only=True)
            except (OSError, UserError) as error:
                complain(f"warning: {path}: not used: {error}")
                continue
            self._restore(state)
            return state["step"], state["more"]
        return 0, {}

    def _restore(self, state: dict) -> None:
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(state["tensors"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=False):  # none after the last step
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"])
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))

    def save(self, step: int, more: dict, *, last: bool = False) -> None:
        """Keep the state after `step` steps if SECONDS have passed since the last time, or if it is the `last`. more: plain values."""
        if self.folder is None or not (last or time.monotonic() >= self.saved + SECONDS):
            return
        state = {
            "step": step,
            "more": more,
            "tensors": {name: tensor.detach() for name, tensor in self.tensors().items()},
            "optimizers": [] if last else [optimizer.state_dict() for optimizer in self.optimizers],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "python": random.getstate(),
        }
        file = io.BytesIO()
        torch.save(state, file)
        content = file.getvalue()
        self.saved = time.monotonic()
        try:
            write_bytes(self.folder / f"step-{step:09d}.pt", hashlib.sha256(content).digest() + content)
        except UserError as error:
            complain(f"warning: {error}; the training goes on without a checkpoint")
            return
        for path in self.files()[: -1 if last else -KEPT]:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
