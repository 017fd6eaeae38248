"""Attention by its formula, for training small models on a CPU: registered with transformers as "plain"."""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

PLAIN = "plain"


class Attention(torch.autograd.Function):
    """softmax(q k' + mask) v over [B, heads, T, width], in as few [B, heads, T, T] buffers as can be: their memory is what takes the time."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        scores = query @ key.transpose(2, 3)
        if mask is not None:
            scores += mask
        weights = scores.softmax(-1)
        ctx.save_for_backward(query, key, value, weights)
        return weights @ value

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, weights = ctx.saved_tensors
        scores = gradient @ value.transpose(2, 3)
        torch._softmax_backward_data(scores, weights, -1, weights.dtype, grad_input=scores)
        return scores @ key, scores.transpose(2, 3) @ query, weights.transpose(2, 3) @ gradient, None


def plain_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **_: object
) -> tuple[Tensor, None]:
    """All of it in autocast's precision, if there is one, else in that of its inputs. Neither dropout nor windows, caps or sinks: for
    LLaVA on Llama. Queries [B, heads, T, width], keys and values the same or with fewer heads.

    Autocast brings mask and softmax to float32 and back, and a CPU's fused kernel has a slow backward pass: see `benchmarks/attention.py`.
    """
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    shared = query.shape[1] // key.shape[1]  # grouped queries
    key, value = (x.repeat_interleave(shared, 1) if shared > 1 else x for x in (key, value))
    query, key, value = (query * scaling).to(dtype), key.to(dtype), value.to(dtype)
    if mask is not None:  # float32's lowest would become -inf, and a row of padding NaN
        mask = mask[..., : key.shape[2]].clamp(min=torch.finfo(dtype).min).to(dtype)
    with torch.autocast(device, enabled=False):
        return Attention.apply(query, key, value, mask).transpose(1, 2).contiguous(), None


AttentionInterface.register(PLAIN, plain_attention)
AttentionMaskInterface.register(PLAIN, eager_mask)
