"""A guard for families that nobody has tested: at load a model answers about one picture by itself and through this library.

The two ways must agree: same token ids, same logits. So an unknown family works or is refused, and never answers wrongly in silence.
"""

import inspect
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hkd_core.common.errors import UserError
from hkd_core.models.families import conversations
from hkd_core.models.vlm import VLM, to_device

PROMPT = "Is there a dog in the image?"
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}  # of the largest logit
ROUGH = 0.05  # for half precisions, in which the plain model's head rounds


def small_picture() -> Image.Image:
    """A picture of 64 x 48 with an edge in both directions, the same every time."""
    picture = Image.linear_gradient("L").resize((64, 48))
    return Image.merge("RGB", (picture, picture.rotate(180), Image.new("L", (64, 48), 90)))


def plain_inputs(vlm: VLM, picture: Image.Image, prompt: str) -> dict[str, Tensor]:
    """What transformers itself makes of a question about a picture: template, processor, tensors in the model's precision."""
    asked = conversations(vlm.processor, prompt, "")[0]
    bos = vlm.tokenizer.bos_token
    special = bos is None or not asked.startswith(bos)  # as apply_chat_template(tokenize=True) decides
    found = vlm.processor(text=[asked], images=[[picture]], return_tensors="pt", add_special_tokens=special)
    known: dict[str, Any] = {k: v for k, v in found.items() if isinstance(v, Tensor) and k != "labels"}
    return {k: v.to(vlm.device, vlm.head.dtype if v.is_floating_point() else v.dtype) for k, v in known.items()}


@torch.no_grad()
def check_answers(vlm: VLM) -> None:
    """Compare the logits after one question with the plain model's, in eval mode, without touching random numbers.

    Raises UserError where token ids or logits differ, with the size of the difference. It also does where logits are not finite, and for
    classes that take no features.
    """
    family = vlm.core.config.model_type
    if "mm_encoder_outputs" not in inspect.signature(vlm.core.forward).parameters:
        raise UserError(f"{vlm.name}: {family} is not supported: its class takes no picture features that were computed before")
    picture = small_picture()
    plain = plain_inputs(vlm, picture, PROMPT)
    suffix = vlm.suffix(PROMPT)
    encoded = vlm.encode(vlm.prepare([picture]))
    ids = plain["input_ids"][0].tolist()
    if encoded[0].prefix + suffix != ids:
        raise UserError(f"{vlm.name}: {family} is not supported: its prompt has {len(ids)} tokens, this library makes others of it")
    expected = vlm.core(**plain).logits[0, -1].float()
    if not torch.isfinite(expected).all():
        raise UserError(f"{vlm.name}: its logits are not finite in {vlm.head.dtype}: expected a dtype that holds them, such as bfloat16")
    batch = to_device(vlm.inputs(encoded, [suffix]), vlm.device)
    found = vlm.logits(vlm.hidden(batch).last_hidden_state[:, -1])[0]
    if hasattr(vlm.core.base_model, "rope_deltas"):
        vlm.core.base_model.rope_deltas = None  # type: ignore[assignment]
    difference = float((found - expected.to(found.device)).abs().max())
    allowed = TOLERANCE.get(vlm.head.dtype, ROUGH) * max(1.0, float(expected.abs().max()))
    if not difference <= allowed:
        raise UserError(
            f"{vlm.name}: {family} is not supported: asked through this library its logits differ from the plain model's by up to "
            f"{difference:.3g}, expected at most {allowed:.3g}"
        )
