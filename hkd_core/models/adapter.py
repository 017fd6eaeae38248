"""The hallucination elimination adapter (HEA): a residual bottleneck behind each of the last decoder layers.

h' = h + W_up gelu(W_down h + b_down) + b_up, with W_up = 0 and b_up = 0 at the start

So at step 0 the adapted model is the original to the bit. The base stays frozen, and detaching the adapter gives it back. SEED's
abstract (arXiv 2507.04680) names such an adapter; its shape and its place are our choice.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from hkd_core.common.errors import UserError
from hkd_core.common.files import write_bytes, write_json
from hkd_core.models.checkpoints import check_filled, read_object, read_tensors
from hkd_core.models.families import decoder_layers

CONFIG_NAME = "hea_config.json"
WEIGHTS_NAME = "hea.safetensors"
MARK = "hallucination_elimination"  # on each hook: the adapter it belongs to


def attached(layers: Iterable[nn.Module]) -> "HallucinationEliminationAdapter | None":
    """The adapter that is attached to one of these decoder layers, if there is one."""
    hooks = (hook for layer in layers for hook in layer._forward_hooks.values())
    return next((getattr(hook, MARK) for hook in hooks if hasattr(hook, MARK)), None)


class Bottleneck(nn.Module):
    """h + W_up gelu(W_down h), with biases. [..., width] in and out, `rank` between."""

    def __init__(self, width: int, rank: int):
        super().__init__()
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        nn.init.normal_(self.down.weight, std=width**-0.5)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, h: Tensor) -> Tensor:
        inner = self.down(h.to(self.down.weight.dtype))
        return h + self.up(nn.functional.gelu(inner)).to(h.dtype)


class HallucinationEliminationAdapter(nn.Module):
    """`layers` bottlenecks of `rank`, one behind each of the model's last decoder layers. It works beside peft and with generate.

    Raises UserError for a width, a rank or a number of layers below 1.
    """

    def __init__(self, width: int, *, rank: int = 16, layers: int = 1):
        super().__init__()
        for name, value in (("width", width), ("rank", rank), ("layers", layers)):
            if value < 1:
                raise UserError(f"adapter: {name} must be at least 1, got {value}")
        self.config = {"width": width, "rank": rank, "layers": layers}
        self.blocks = nn.ModuleList(Bottleneck(width, rank) for _ in range(layers))
        self.enabled = True
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def attach(self, model: nn.Module) -> "HallucinationEliminationAdapter":
        """Hook into a transformers (or peft) model whose own parameters are then frozen; returns self.

        Raises UserError if the width or the number of layers does not fit, or if this or another such adapter is attached already.
        """
        if self._hooks:
            raise UserError("adapter: attached already; detach it first")
        core = model.get_base_model() if hasattr(model, "get_base_model") else model
        decoder = decoder_layers(core)
        width = core.get_output_embeddings().weight.shape[1]
        if width != self.config["width"]:
            raise UserError(f"adapter: made for hidden width {self.config['width']}, the model's is {width}")
        if len(decoder) < len(self.blocks):
            raise UserError(f"adapter: has {len(self.blocks)} layers, the model only {len(decoder)}")
        if attached(decoder) is not None:
            raise UserError("adapter: the model has another one attached; detach that first")
        core.requires_grad_(False)
        weight = core.get_output_embeddings().weight
        self.to(weight.device)
        for block, layer in zip(self.blocks, decoder[-len(self.blocks) :], strict=True):
            corrector = self._corrector(block)
            setattr(corrector, MARK, self)
            self._hooks.append(layer.register_forward_hook(corrector))
        return self

    def _corrector(self, block: nn.Module) -> Callable:
        def correct(module: nn.Module, arguments: tuple, output):
            if not self.enabled:
                return output
            if isinstance(output, tuple):
                return (block(output[0]), *output[1:])
            return block(output)

        return correct

    def detach(self) -> None:
        """Take the hooks off; the model is the original again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def save_pretrained(self, folder: str | Path) -> None:
        """Write safetensors and a config into `folder`."""
        write_bytes(Path(folder) / WEIGHTS_NAME, save(self.state_dict()))
        write_json(Path(folder) / CONFIG_NAME, self.config)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "HallucinationEliminationAdapter":
        """Read what `save_pretrained` wrote.

        Raises UserError naming the folder, and the tensors, if weights are missing, unexpected, of another shape or not finite.
        """
        path, expected = Path(folder) / CONFIG_NAME, ("width", "rank", "layers")
        config = read_object(path)
        if set(config) != set(expected) or not all(type(value) is int and value > 0 for value in config.values()):
            raise UserError(f"{path}: expected {', '.join(expected)}, each a positive whole number, got {str(config)[:100]}")
        tensors, (width, rank, layers) = read_tensors(Path(folder) / WEIGHTS_NAME), (config[name] for name in expected)
        shapes = {"down.weight": (rank, width), "down.bias": (rank,), "up.weight": (width, rank), "up.bias": (width,)}
        blocks = range(min(layers, len(tensors) + 1))  # however many the config asks for
        shapes = {f"blocks.{i}.{name}": shape for i in blocks for name, shape in shapes.items()}
        wrong = [(k, t.shape, shapes[k]) for k, t in tensors.items() if k in shapes and tuple(t.shape) != shapes[k]]
        check_filled(folder, shapes.keys() - tensors.keys(), tensors.keys() - shapes.keys(), wrong, CONFIG_NAME)
        adapter = cls(**config)
        adapter.load_state_dict(tensors)
        return adapter
