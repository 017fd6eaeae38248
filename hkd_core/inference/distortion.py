"""Distortions of a picture that leave only the model's prior. Each takes normalised pixels and gives the same shape."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hkd_core.common.errors import UserError

PIXEL_VIEWS = ("noise", "blur", "patches", "blank")
STEPS = 1000


def diffuse(pixels: Tensor, step: int, generator: torch.Generator) -> Tensor:
    """The forward diffusion of VCD's published schedule (arXiv 2311.16922) at `step` of 1000."""
    betas = torch.sigmoid(torch.linspace(-6, 6, STEPS, dtype=torch.float64)) * (5e-3 - 1e-5) + 1e-5
    kept = float(torch.cumprod(1 - betas, 0)[step])
    noise = torch.randn(pixels.shape, generator=generator).to(pixels)
    return kept**0.5 * pixels + (1 - kept) ** 0.5 * noise


def blur(pixels: Tensor, sigma: float) -> Tensor:
    """Gaussian blur over the last two dimensions, `sigma` in pixels; borders reflect."""
    radius = min(int(3 * sigma + 0.5), pixels.shape[-1] - 1)
    at = torch.arange(-radius, radius + 1, device=pixels.device)
    kernel = torch.exp(-at.float().square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(pixels)
    flat = pixels.reshape(-1, 1, *pixels.shape[-2:])
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="reflect"), kernel[None, None, None, :])
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="reflect"), kernel[None, None, :, None])
    return flat.reshape(pixels.shape)


def drop_patches(pixels: Tensor, share: float, size: int, generator: torch.Generator) -> Tensor:
    """Each size x size patch is replaced, with probability `share`, by the picture's mean colour."""
    if pixels.shape[-2] % size or pixels.shape[-1] % size:
        sides = f"{pixels.shape[-2]} x {pixels.shape[-1]}"
        raise UserError(f'distortion "patches": a picture of {sides} pixels has no whole number of {size} x {size} patches')
    rows, columns = pixels.shape[-2] // size, pixels.shape[-1] // size
    dropped = torch.rand((len(pixels), 1, rows, columns), generator=generator) < share
    dropped = dropped.repeat_interleave(size, 2).repeat_interleave(size, 3).to(pixels.device)
    return torch.where(dropped, pixels.mean((-2, -1), keepdim=True), pixels)


def distortion(view: str, strength: float, *, seed: int = 0, patch: int = 16) -> Callable[[Tensor], Tensor]:
    """A distortion of normalised pixels [N, C, H, W], the same for the same seed.

    strength: "noise" the diffusion step (0 to 999), "blur" sigma in pixels, "patches" the share dropped; "blank" has none.
    Raises UserError for an unknown view, a strength out of range, or pixels whose shape does not allow it.
    """
    if view not in PIXEL_VIEWS:
        raise UserError(f'distortion: expected one of {", ".join(PIXEL_VIEWS)}, got "{view}"')
    if view == "noise" and not 0 <= strength < STEPS:
        raise UserError(f"distortion: noise expects a step from 0 to {STEPS - 1}, got {strength}")
    if view == "blur" and strength <= 0:
        raise UserError(f"distortion: blur expects a sigma above 0, got {strength}")
    if view == "patches" and not 0 <= strength <= 1:
        raise UserError(f"distortion: patches expects a share from 0 to 1, got {strength}")
    generator = torch.Generator().manual_seed(seed)

    def apply(pixels: Tensor) -> Tensor:
        if view == "noise":
            return diffuse(pixels, int(strength), generator)
        if pixels.ndim != 4:
            raise UserError(
                f'distortion "{view}" needs pixels [N, C, H, W]; this processor gives {list(pixels.shape)}: use "noise"'
            )
        if view == "blur":
            return blur(pixels, strength)
        if view == "patches":
            return drop_patches(pixels, strength, patch, generator)
        return pixels.mean((-2, -1), keepdim=True).expand_as(pixels).contiguous()

    return apply
