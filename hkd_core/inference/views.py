"""What a model is shown in place of the picture, so that only its prior is left to answer: one view or several.

"noise", "blur", "patches" and "blank" distort the pixels. "none" shows no picture. "shuffled" shows other, random pictures.
"alike" and "least" are our own. A destroyed picture is unlike any that the model has seen, so its answer is no clean prior. "alike"
shows other pictures whose colours are similar, and takes their mean. "least" shows the same pictures and takes each token at its
smallest probability (`contrast.least`).
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hkd_core.common.errors import UserError
from hkd_core.inference.distortion import PIXEL_VIEWS, distortion
from hkd_core.models.families import as_tensor
from hkd_core.models.vlm import VLM, Encoded, Picture, as_image, encode_all

VIEWS = (*PIXEL_VIEWS, "alike", "least", "shuffled", "none")
FREE_TEXT_VIEWS = 8  # at most, where texts differ and views cannot be shared
LITTLE_NOISE = 100  # diffusion steps: a clean view that is not the same picture


class Features:
    """What one model sees of some pictures: as they are, and under any view. A view is computed when it is first asked for.

    ids, pictures: names and pictures in one order. clean: name -> Encoded. seed: of everything that is drawn at random.
    pool: "alike" and "least" take their pictures among the first `pool`, so that fewer have to be read; None: among all.
    """

    def __init__(self, vlm: VLM, ids: Sequence[str], pictures: Sequence[Picture], *, seed: int = 0, pool: int | None = None):
        self.vlm, self.ids, self.pictures, self.seed, self.pool = vlm, list(ids), pictures, seed, pool
        self.clean: dict[str, Encoded] = self._named(encode_all({"": vlm}, pictures)[""])
        self._views: dict[tuple[str, float], list[dict[str, Encoded]]] = {}

    @classmethod
    def of_examples(cls, vlm: VLM, examples: Sequence[dict], *, seed: int = 0, pool: int | None = None) -> "Features":
        """The features of the examples' pictures (`image`), named as `with_ids` names them."""
        for n, row in enumerate(examples):
            if row.get("image") is None:
                raise UserError(f"example {n}: expected a picture under image, got none")
        pictures = {row["image_id"]: row["image"] for row in with_ids(examples)}
        return cls(vlm, list(pictures), list(pictures.values()), seed=seed, pool=pool)

    def _named(self, encoded: Sequence[Encoded]) -> dict[str, Encoded]:
        return dict(zip(self.ids, encoded, strict=True))

    def under(self, view: str, strength: float) -> list[dict[str, Encoded]]:
        """One dict name -> Encoded for each of the views that `distorted_views` gives. Raises UserError as it does."""
        if (view, strength) not in self._views:
            found = distorted_views(
                self.vlm, self.pictures, list(self.clean.values()), view, strength, seed=self.seed, pool=self.pool
            )
            self._views[view, strength] = [self._named(encoded) for encoded in found]
        return self._views[view, strength]

    def clean_views(self, count: int) -> list[dict[str, Encoded]]:
        """`count` views in which everything can be seen: the picture itself, then the picture with a little noise."""
        clean = list(self.clean.values())
        noisy = (
            distorted_views(self.vlm, self.pictures, clean, "noise", LITTLE_NOISE, seed=self.seed + k)[0] for k in range(1, count)
        )
        return [self.clean, *map(self._named, noisy)]


def with_ids(examples: Sequence[dict]) -> list[dict]:
    """The examples with an `image_id`: their own, or a name made of the picture's content, so that equal pictures share it.

    Raises UserError for an example that has neither `image_id` nor `image`.
    """
    known: dict[int, str] = {}
    found = []
    for row in examples:
        if not row.get("image_id"):
            if row.get("image") is None:
                raise UserError(f'example "{row.get("prompt", "")}": expected an image or an image_id, got neither')
            image = row["image"]
            if id(image) not in known:
                pixels = np.asarray(image)
                known[id(image)] = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:16]
            row = row | {"image_id": known[id(image)]}
        found.append(row)
    return found


def gist(pixels: Tensor) -> Tensor:
    """[N, 12]: the mean colours of a picture's quarters; pixels [N, 3, H, W]. Raises UserError for other shapes."""
    if pixels.ndim != 4:
        raise UserError(f'views "alike" and "least" need pixels [N, C, H, W], got {list(pixels.shape)}')
    return F.adaptive_avg_pool2d(pixels.float(), 2).flatten(1)


def gists(vlm: VLM, pictures: Sequence[Picture]) -> Tensor:
    """[N, 12], from the pixels that the model sees, or from the pictures where its processor cuts them into tiles or patches."""
    pixels = as_tensor(vlm.prepare(pictures)["pixel_values"])
    if pixels.ndim == 4 and len(pixels) == len(pictures) and pixels.shape[1] == 3:
        return gist(pixels)
    seen = (as_image(picture) for picture in pictures)
    arrays = (np.asarray((Image.fromarray(one) if isinstance(one, np.ndarray) else one).convert("RGB")) for one in seen)
    return torch.cat([gist(torch.as_tensor(array.copy()).permute(2, 0, 1)[None]) for array in arrays])


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
    """[total, count] indices of other pictures, `count` different random ones for each. Raises UserError as `nearest` does."""
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
    view: str,
    strength: float,
    *,
    seed: int,
    pool: int | None = None,
    batch_size: int = 250,
) -> list[list[Encoded]]:
    """Views of every picture without what is asked about: one list [N] for each view.

    clean: the pictures' own features. view, strength: as `distortion` takes them; this gives one view. For "alike", "least" and
    "shuffled" the strength is the number of views. For "none" it means nothing.
    pool: "alike" and "least" take their views among the first `pool` pictures. None: among all.
    Raises UserError for an unknown view or a strength out of range.
    """
    if view not in VIEWS:
        raise UserError(f'view: expected one of {", ".join(VIEWS)}, got "{view}"')
    if view in PIXEL_VIEWS:
        return [encode_all({"": vlm}, pictures, distort=distortion(view, strength, seed=seed), batch_size=batch_size)[""]]
    if view == "none":
        return [[vlm.without_picture(picture) for picture in clean]]
    if view == "shuffled":
        return [[clean[int(k)] for k in column] for column in others(len(clean), int(strength), seed).T]
    starts = range(0, len(pictures), batch_size)
    places = nearest(torch.cat([gists(vlm, pictures[i : i + batch_size]) for i in starts]), int(strength), pool)
    return [[clean[int(k)] for k in column] for column in places.T]
