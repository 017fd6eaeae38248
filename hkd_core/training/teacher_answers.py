"""What frozen teachers answer. Each is asked once, before a student learns from it, for its distribution over an example's choices."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hkd_core.common.errors import UserError
from hkd_core.data.wording import Wording, options_of, rotations
from hkd_core.inference.scoring import choice_tokens, token_logits
from hkd_core.models.vlm import VLM
from hkd_core.training.examples import UNLABELLED, TrainingSet


def first_tokens(vlm: VLM, examples: Sequence[dict]) -> dict[tuple[str, ...], list[int]]:
    """choices -> the first token of each, for the examples that have choices.

    Raises UserError where two choices begin with the same token: one token cannot tell them apart.
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


def choice_logprobs(vlm: VLM, name: str, data: TrainingSet, wording: Wording | None = None) -> Tensor:
    """[examples, C] a teacher's log-probabilities of each example's choices; C: the most choices, -inf where an example has fewer.

    name: the model's features in `data`. A frozen teacher answers the same in every epoch, so it is asked once and not at every step.
    wording: with one, lettered options are asked at every place and the answers averaged, as mapping shift does (HKD4VLM's inference,
    used for teachers: our choice). Rotations that `data` lacks are asked besides. None: every example is asked as it is.
    """
    more = missing_rotations(data.examples, wording) if wording else []
    starts = first_tokens(vlm, data.examples)
    own = data.asked[name]
    prompts = [suffix[:length] for suffix, length in zip(own.suffixes, own.prompts, strict=True)]
    prompts += [vlm.suffix(row["prompt"]) for row in more]
    examples = [*data.examples, *more]
    rows = [i for i, row in enumerate(examples) if row["choices"]]
    pictures = [data.pictures[name][examples[i]["image_id"]] for i in rows]
    logits = token_logits(vlm, [prompts[i] for i in rows], [1] * len(rows), pictures, title=f"{name} answers")
    logprobs = torch.full((len(examples), max(map(len, starts.values()), default=1)), -torch.inf)
    for i, x in zip(rows, logits, strict=True):
        tokens = starts[tuple(examples[i]["choices"])]
        logprobs[i, : len(tokens)] = x[0, tokens].log_softmax(-1)
    return averaged(examples, logprobs, wording)[: len(data)] if wording else logprobs


def missing_rotations(examples: Sequence[dict], wording: Wording) -> list[dict]:
    """Every rotation (`rotations`) of an example that is not among the examples itself."""
    known = {(row["image_id"], row["prompt"]) for row in examples}
    found = []
    for row in examples:
        for rotated in rotations(row, wording)[1:]:
            if (key := (rotated["image_id"], rotated["prompt"])) not in known:
                known.add(key)
                found.append(rotated)
    return found


def averaged(examples: Sequence[dict], logprobs: Tensor, wording: Wording) -> Tensor:
    """[examples, C]: rotations of one example get the mean of their log-probabilities [examples, C], content by content, normalised.

    Examples are rotations of each other where picture and prompt are the same except for the order of the options.
    """
    alike: dict[tuple, list[int]] = {}
    for i, row in enumerate(examples):
        options = options_of(row)
        listed = wording.list_options(options) if options else None
        if listed and torch.isfinite(logprobs[i]).any():
            alike.setdefault((row["image_id"], row["prompt"].replace(listed, ""), *sorted(options)), []).append(i)
    found = logprobs.clone()
    for members in alike.values():
        options = [options_of(examples[i]) for i in members]
        places = [[several.index(content) for content in sorted(several)] for several in options]
        mean = torch.stack([logprobs[i, place] for i, place in zip(members, places, strict=True)]).mean(0).log_softmax(-1)
        for i, place in zip(members, places, strict=True):
            found[i, place] = mean
    return found


def collate_with_teachers(data: TrainingSet, teacher_logprobs: Mapping[str, Tensor]) -> Callable[[list[int]], dict]:
    """Indices -> the batch of `data`, with the teachers' answers to those M of its examples that all of them answered.

    teacher_logprobs: name -> [examples, C], of `choice_logprobs`. The batch has

    - "teacher_logprobs", name -> [M, C];
    - "choices" [M, C], the choices' first tokens, 0 where there are fewer;
    - "chosen" [M], which choice is the label, or UNLABELLED;
    - "first" [M], which of the batch's answer tokens is each example's first.
    """
    answered = torch.isfinite(torch.stack(list(teacher_logprobs.values()))).any(-1).all(0).tolist()
    most = next(iter(teacher_logprobs.values())).shape[1]
    starts = {choices: tokens + [0] * (most - len(tokens)) for choices, tokens in first_tokens(data.vlm, data.examples).items()}

    def collate(indices: list[int]) -> dict:
        batch = data.collate(indices)
        counts = batch["asked"].sum(1)
        begins = counts.cumsum(0) - counts
        places = [n for n, i in enumerate(indices) if answered[i]]
        rows = [data.examples[indices[n]] for n in places]
        chosen = [row["choices"].index(row["answer"]) if row["answer"] else UNLABELLED for row in rows]
        return batch | {
            "teacher_logprobs": {name: logp[[indices[n] for n in places]] for name, logp in teacher_logprobs.items()},
            "choices": torch.tensor([starts[tuple(row["choices"])] for row in rows], dtype=torch.long).view(-1, most),
            "chosen": torch.tensor(chosen, dtype=torch.long),
            "first": begins[places],
        }

    return collate
