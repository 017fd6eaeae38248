"""What a model is shown in place of the picture, so that only its prior is left to speak: one distorted view or several.

"alike" is ours: other pictures of like gist, as they are. A destroyed picture is none the model has ever seen, and what it
then says is no clean prior; another picture of the same kind of place is, and several of them give its mean. "least" looks at the same
pictures and takes every token at its least (`contrast.least`). "shuffled" are other pictures whatever their gist, "none" is no picture.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hkd_core.common.errors import UserError
from hkd_core.inference.distortion import KINDS as DISTORTIONS
from hkd_core.inference.distortion import distortion
from hkd_core.models.vlm import VLM, Encoded, Picture, encode_all

KINDS = (*DISTORTIONS, "alike", "least", "shuffled", "none")
FREE_TEXT_VIEWS = 8  # at most, where texts differ and views cannot be shared


def gist(pixels: Tensor) -> Tensor:
    """[N, 12]: the mean colours of a picture's quarters; pixels [N, 3, H, W]. Raises UserError for other shapes."""
    if pixels.ndim != 4:
        shape = list(pixels.shape)
        raise UserError(f'distortion "alike" and "least" need pixels [N, C, H, W]; this processor gives {shape}: use "shuffled"')
    return F.adaptive_avg_pool2d(pixels.float(), 2).flatten(1)


def nearest(gists: Tensor, count: int, pool: int | None = None) -> Tensor:
    """[N, count] indices of the other pictures whose gist is nearest, the nearest first; among the first `pool`, or all.

    Raises UserError if there are not so many others.
    """
    others = gists[:pool]
    if not 1 <= count < len(others):
        raise UserError(f"alike: expected a number of views from 1 to {len(others) - 1}, one less than the pictures, got {count}")
    found = []
    for start in range(0, len(gists), 1000):
        rows = gists[start : start + 1000]
        distance = torch.cdist(rows, others)
        own = torch.arange(min(start, len(others)), min(start + len(rows), len(others)))
        distance[own - start, own] = torch.inf
        found.append(distance.topk(count, largest=False).indices)
    return torch.cat(found)


def others(total: int, count: int, seed: int) -> Tensor:
    """[total, count] indices of other pictures, `count` different ones for each, drawn at random. Raises UserError as `nearest` does."""
    if not 1 <= count < total:
        raise UserError(f"shuffled: expected a number of views from 1 to {total - 1}, one less than the pictures, got {count}")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(total, generator=generator)
    steps = 1 + torch.randperm(total - 1, generator=generator)[:count]
    # Everyone's neighbours on one random circle: never oneself.
    places = (torch.arange(total)[:, None] + steps) % total
    return order[places][order.argsort()]


def distorted_views(
    vlm: VLM,
    pictures: Sequence[Picture],
    clean: Sequence[Encoded],
    kind: str,
    strength: float,
    *,
    seed: int,
    pool: int | None = None,
    batch_size: int = 250,
) -> list[list[Encoded]]:
    """Views of every picture without what is asked about: one list [N] a view.

    clean: the pictures' own features. kind, strength: as `distortion` takes them (one view), or "alike" or "least" and how many views,
    taken among the first `pool` pictures (fewer views to read) or all; "shuffled" and how many; "none" has no strength.
    Raises UserError for an unknown kind or a strength out of range.
    """
    if kind not in KINDS:
        raise UserError(f'distortion: expected one of {", ".join(KINDS)}, got "{kind}"')
    if kind in DISTORTIONS:
        return [encode_all({"": vlm}, pictures, distort=distortion(kind, strength, seed=seed), batch_size=batch_size)[""]]
    if kind == "none":
        return [[vlm.without_picture(picture) for picture in clean]]
    if kind == "shuffled":
        return [[clean[int(k)] for k in column] for column in others(len(clean), int(strength), seed).T]
    starts = range(0, len(pictures), batch_size)
    pixels = (torch.as_tensor(np.asarray(vlm.prepare(pictures[i : i + batch_size])["pixel_values"])) for i in starts)
    places = nearest(torch.cat([gist(part) for part in pixels]), int(strength), pool)
    return [[clean[int(k)] for k in column] for column in places.T]
