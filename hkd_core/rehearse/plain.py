"""The plain transformers model, asked one picture at a time. It is what the library is compared with, and shares no code with it.

Prompts come from the processor's own `apply_chat_template(tokenize=True)`, logits from `model(**inputs)`, text from `model.generate`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

Inputs = dict[str, Tensor]


class Plain:
    """A model and its processor, as transformers loads them."""

    def __init__(self, model: Any, processor: Any):
        self.model, self.processor = model, processor

    def inputs(self, picture: Image.Image, prompt: str) -> Inputs:
        """What the processor makes of one question about one picture."""
        if self.processor.chat_template is None:  # PaliGemma
            found = self.processor(text=f"<image>{prompt}", images=picture, return_tensors="pt")
        else:
            content = [{"type": "image", "image": picture}, {"type": "text", "text": prompt}]
            turn = [{"role": "user", "content": content}]
            found = self.processor.apply_chat_template(
                turn, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        return {k: v for k, v in found.items() if k != "labels"}

    def blind(self, picture: Image.Image, prompt: str) -> Inputs:
        """The same question without the picture and its placeholders."""
        found = self.inputs(picture, prompt)
        seen = found["input_ids"][0] == self.model.config.image_token_id
        words = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
        return {k: v[:, ~seen] for k, v in found.items() if k in words}

    def followed(self, inputs: Inputs, tokens: Sequence[int]) -> Inputs:
        """The inputs with answer tokens behind them."""
        count = len(tokens)
        causal = 1 if self.model.config.model_type == "paligemma" else 0
        new = {"input_ids": list(tokens), "attention_mask": [1] * count, "token_type_ids": [causal] * count, "mm_token_type_ids": [0] * count}
        return {k: torch.cat([v, torch.tensor([new[k]]).to(v)], 1) if k in new else v for k, v in inputs.items()}

    @torch.no_grad()
    def logits(self, inputs: Inputs, tokens: Sequence[int] = ()) -> Tensor:
        """[tokens + 1, V] logits from the prompt's last token on."""
        found = self.model(**self.followed(inputs, tokens)).logits[0].float()
        return found[found.shape[0] - len(tokens) - 1 :]

    def score(self, inputs: Inputs, tokens: Sequence[int]) -> float:
        """log p(tokens | inputs)."""
        logp = self.logits(inputs, tokens).log_softmax(-1)
        return float(sum(logp[k, token] for k, token in enumerate(tokens)))

    @torch.no_grad()
    def generated(self, inputs: Inputs, count: int) -> list[int]:
        """The next `count` tokens, greedy, or fewer where the answer ends."""
        found = self.model.generate(**inputs, max_new_tokens=count, do_sample=False)
        return found[0, inputs["input_ids"].shape[1] :].tolist()
