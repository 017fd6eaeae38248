"""Muon (Jordan et al. 2024; arXiv 2502.16982), matrices of one shape together: small models' layers are too small one by one."""

from collections import defaultdict

import torch
from torch import Tensor

from hkd_core.common.precision import fast_dtype

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrices: Tensor, steps: int = 5, eps: float = 1e-7) -> Tensor:
    """[N, rows, columns] with rows <= columns -> roughly the nearest semi-orthogonal matrices: singular values near 1.

    Computes and returns in the dtype that the device multiplies fast.
    """
    a, b, c = NEWTON_SCHULZ
    found = matrices.to(fast_dtype(matrices.device))
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found


class Muon(torch.optim.Muon):
    """torch.optim.Muon, whose Newton-Schulz steps go over all matrices of a shape (or its transpose) in one product.

    Raises ValueError, as that class does, for parameters that are no matrices. Its settings keep their defaults, but for lr,
    weight_decay and adjust_lr_fn="match_rms_adamw".
    """

    def __init__(self, params, lr: float, weight_decay: float):
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            shapes = defaultdict(list)
            for param in group["params"]:
                if param.grad is not None:
                    shapes[tuple(sorted(param.shape))].append(param)
            for params in shapes.values():
                self.step_together(params, group)

    def step_together(self, params: list[Tensor], group: dict) -> None:
        momentum, rate = group["momentum"], group["lr"]
        for param in params:
            if "momentum_buffer" not in self.state[param]:
                self.state[param]["momentum_buffer"] = torch.zeros_like(param)
        gradients, buffers = [param.grad for param in params], [self.state[param]["momentum_buffer"] for param in params]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, buffers, momentum)
        tall = [len(param) > param.shape[1] for param in params]
        updates = orthogonalised(torch.stack([u.T if t else u for u, t in zip(ahead, tall, strict=True)]), group["ns_steps"])
        # Updates as large as AdamW's, by root mean square (arXiv 2502.16982, equation 4).
        size = 0.2 * max(params[0].shape) ** 0.5
        torch._foreach_mul_(params, 1 - rate * group["weight_decay"])
        torch._foreach_add_(
            params, [u.T if t else u for u, t in zip(updates.to(params[0].dtype), tall, strict=True)], alpha=-rate * size
        )
