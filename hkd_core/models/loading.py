"""Loading a vision-language model from a folder or the Hugging Face hub, with an adapter if asked."""

from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration
from transformers.utils import logging as transformers_logging

from hkd_core.common.errors import UserError
from hkd_core.models import attention
from hkd_core.models.adapter import CONFIG_NAME, HallucinationEliminationAdapter
from hkd_core.models.vlm import VLM


def why_not(error: Exception) -> str:
    """One line on what a model or processor lacks: the package to install, or the first line of what transformers says."""
    text = str(error).strip()
    for package in ("torchvision", "num2words") if isinstance(error, ImportError) else ():
        if package in text.lower():
            return f"its processor needs the package {package}, which is not installed: pip install -e '.[vlm]'"
    return text.splitlines()[0]


def load_vlm(path_or_hub_id: str | Path, adapter: str | Path | None = None, device: str = "auto", dtype="auto") -> VLM:
    """A model that answers questions about pictures, any that AutoModelForImageTextToText takes, in eval mode.

    adapter: folder of a HallucinationEliminationAdapter or of a peft adapter. device: "auto" takes the GPU if there is one.
    dtype: "auto" keeps the checkpoint's own.
    Raises UserError, naming the path, where there is no model, no processor, a package that the processor needs is missing, or the
    adapter does not fit.
    """
    transformers_logging.disable_progress_bar()
    where = str(path_or_hub_id)
    looks_local = where.startswith((".", "/", "models")) or Path(where).exists()
    if looks_local and not (Path(where) / "config.json").is_file():
        raise UserError(f"{where}: no model here: expected a folder with config.json")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        processor = AutoProcessor.from_pretrained(where)  # first, since it is small
        kind = "eager" if device == "cpu" else "sdpa"  # on a CPU the fused kernel trains slowly
        model = AutoModelForImageTextToText.from_pretrained(where, dtype=dtype, attn_implementation=kind)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"{where}: cannot be loaded as a vision-language model: {why_not(error)}") from error
    text = model.config.get_text_config()
    if (
        device == "cpu"
        and isinstance(model, LlavaForConditionalGeneration)
        and text.model_type == "llama"
        and not text.attention_dropout
    ):
        model.set_attn_implementation(attention.PLAIN)
    vlm = VLM(model.to(device).eval(), processor, name=where)
    if adapter is not None:
        if (Path(adapter) / CONFIG_NAME).is_file():
            vlm.adapter = HallucinationEliminationAdapter.from_pretrained(adapter).attach(vlm.model)
        else:
            from peft import PeftModel

            try:
                vlm.model = PeftModel.from_pretrained(vlm.model, str(adapter)).eval()
            except (OSError, ValueError, RuntimeError) as error:
                raise UserError(f"{adapter}: not an adapter for {where}: {str(error).splitlines()[0]}") from error
    return vlm
