"""bfloat16 or float32: this module alone decides, by what the hardware multiplies fast.

The environment variable HKD_PRECISION (float32, bf16 or auto) decides for training steps and for Muon. Unset means auto.
"""

import os

import torch

from hkd_core.common.errors import UserError

SETTING = "HKD_PRECISION"
# Values of ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA that leave bf16 units unused. torch's hardware checks ignore both variables.
OLDER_ATEN = ("default", "avx2")
OLDER_ONEDNN = ("sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni")


def precision_setting() -> str:
    """The value of HKD_PRECISION. Raises UserError for an unknown one."""
    setting = os.environ.get(SETTING, "auto")
    if setting not in ("float32", "bf16", "auto"):
        raise UserError(f'{SETTING}: expected float32, bf16 or auto, got "{setting}"')
    return setting


def emulates_older_cpu() -> bool:
    """Whether the environment holds torch or oneDNN to the instructions of a CPU without bf16 units."""
    aten, onednn = (os.environ.get(name, "").lower() for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"))
    return aten in OLDER_ATEN or onednn in OLDER_ONEDNN


def fast_dtype(device: str | torch.device) -> torch.dtype:
    """The dtype for large products on a device: what HKD_PRECISION says, or under auto bfloat16 where the hardware has units for it.

    Raises UserError for an unknown HKD_PRECISION.
    """
    setting = precision_setting()
    if setting != "auto":
        return torch.bfloat16 if setting == "bf16" else torch.float32
    if torch.device(device).type == "cuda":
        has_units = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        has_units = has_units and not emulates_older_cpu()
    return torch.bfloat16 if has_units else torch.float32
