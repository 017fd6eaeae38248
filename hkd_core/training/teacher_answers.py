"""What frozen models answer, asked once before a student learns from it: their distributions over every example's choices."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hkd_core.common.errors import UserError
from hkd_core.inference.scoring import choice_tokens, token_logits
from hkd_core.models.vlm import VLM
from hkd_core.training.examples import UNLABELLED, TrainingSet


def first_tokens(vlm: VLM, examples: Sequence[dict]) -> dict[tuple[str, ...], list[int]]:
    """choices -> the token each begins with, of the examples that have choices.

    Raises UserError where two begin alike: one token cannot tell them apart.
    """
    found: dict[tuple[str, ...], list[int]] = {}
    for row in examples:
        choices = tuple(row["choices"])
        if choices and choices not in found:
            found[choices] = [tokens[0] for tokens in choice_tokens(vlm, row["prompt"], choices)]
            if len(set(found[choices])) < len(choices):
                raise UserError(
                    f'choices of "{row["prompt"]}": {", ".join(choices)}: two begin with the same token, so none can be taught by it'
                )
    return found


def choice_logprobs(vlm: VLM, name: str, data: TrainingSet, *, shifted: bool) -> Tensor:
    """[examples, C] log-probabilities of each example's choices, C of the most choices; -inf where there are fewer, or none.

    name: under which the model's features stand in `data`. A frozen teacher says the same in every epoch, so it is asked once, not
    at every step. shifted: as mapping shift-enhanced inference answers, the mean over those examples of `data` that ask the same
    with the options in other places (see `sets.rotated`).
    """
    rows = [i for i, row in enumerate(data.examples) if row["choices"]]
    starts = first_tokens(vlm, data.examples)
    prompts = [data.suffixes[i][: data.prompts[i]] for i in rows]
    pictures = [data.pictures[name][data.examples[i]["image_id"]] for i in rows]
    logits = token_logits(vlm, prompts, [1] * len(rows), pictures, title=f"{name} answers")
    teacher_logprobs = torch.full((len(data), max(map(len, starts), default=1)), -torch.inf)
    for i, x in zip(rows, logits, strict=True):
        tokens = starts[tuple(data.examples[i]["choices"])]
        teacher_logprobs[i, : len(tokens)] = x[0, tokens].log_softmax(-1)
    return averaged(data.examples, teacher_logprobs) if shifted else teacher_logprobs


def averaged(examples: Sequence[dict], teacher_logprobs: Tensor) -> Tensor:
    """`teacher_logprobs` [examples, C], where examples that ask the same with their options in other places say the mean of what each does."""
    alike: dict[tuple, list[int]] = {}
    for i, row in enumerate(examples):
        options = row["meta"].get("options")
        if options and torch.isfinite(teacher_logprobs[i]).any():
            alike.setdefault((row["image_id"], row["task"], row["caption"], *sorted(options)), []).append(i)
    found = teacher_logprobs.clone()
    for members in alike.values():
        contents = sorted(examples[members[0]]["meta"]["options"])
        places = [[examples[i]["meta"]["options"].index(content) for content in contents] for i in members]
        mean = torch.stack([teacher_logprobs[i, place] for i, place in zip(members, places, strict=True)]).mean(0).log_softmax(-1)
        for i, place in zip(members, places, strict=True):
            found[i, place] = mean
    return found


def collate_with_teachers(data: TrainingSet, teacher_logprobs: Mapping[str, Tensor]) -> Callable[[list[int]], dict]:
    """Indices -> the batch of `data`, with what was teacher_logprobs about the M of its examples that the models were asked about.

    "teacher_logprobs" name -> [M, C] log-probabilities; "choices" [M, C] the choices' first tokens, 0 where there are fewer; "chosen" [M] which
    of them is the label, or UNLABELLED; "first" [M] which of the batch's answer tokens is each example's first.
    """
    heard = torch.isfinite(torch.stack(list(teacher_logprobs.values()))).any(-1).all(0).tolist()
    most = next(iter(teacher_logprobs.values())).shape[1]
    starts = {choices: tokens + [0] * (most - len(tokens)) for choices, tokens in first_tokens(data.vlm, data.examples).items()}

    def collate(indices: list[int]) -> dict:
        batch = data.collate(indices)
        counts = batch["asked"].sum(1)
        begins = counts.cumsum(0) - counts
        places = [n for n, i in enumerate(indices) if heard[i]]
        rows = [data.examples[indices[n]] for n in places]
        chosen = [row["choices"].index(row["answer"]) if row["answer"] else UNLABELLED for row in rows]
        return batch | {
            "teacher_logprobs": {name: logp[[indices[n] for n in places]] for name, logp in teacher_logprobs.items()},
            "choices": torch.tensor([starts[tuple(row["choices"])] for row in rows], dtype=torch.long).view(-1, most),
            "chosen": torch.tensor(chosen, dtype=torch.long),
            "first": begins[places],
        }

    return collate
