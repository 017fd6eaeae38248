"""Hidden states after prompts about pictures, each picture read once however many prompts ask about it.

The picture's tokens come first, so their keys and values do not depend on the prompt. One pass over the picture fills a cache. All
prompts about it stand behind it in one row, under a mask that hides each from the others. Nothing is copied. With 576 visual tokens
and six short questions, this saves four fifths of the work.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hkd_core.common.progress import progress
from hkd_core.models.vlm import VLM, Encoded, to_device

Row = tuple[int, Tensor]  # which prompt, its last hidden states
PACKED = 256  # tokens of prompts in one row, so that what the mask hides stays cheap


def last_states(
    vlm: VLM,
    pictures: Sequence[Encoded],
    suffixes: Sequence[list[int]],
    keep: Sequence[int],
    *,
    batch_size: int = 128,
    title: str = "",
) -> Iterator[Row]:
    """Yields (index, [keep[index], H]) for every suffix, in whatever order is fastest.

    pictures: what each suffix is about; the same object for the same picture. keep: how many of the last states are wanted, from the
    prompt's last token on.
    """
    owners: dict[int, list[int]] = {}
    for i, picture in enumerate(pictures):
        owners.setdefault(id(picture), []).append(i)
    alone = [i for rows in owners.values() if len(rows) == 1 or vlm.reads_both_ways for i in rows]
    shared = [rows for rows in owners.values() if len(rows) > 1 and not vlm.reads_both_ways]
    # Rows of like length share a batch, so that little is padded; the pictures of a batch have prefixes of one length.
    alone.sort(key=lambda i: len(suffixes[i]))
    batches = [alone[i : i + batch_size] for i in range(0, len(alone), batch_size)]
    groups = grouped(shared, [len(pictures[rows[0]].prefix) for rows in shared], batch_size)
    with progress(total=len(pictures), desc=title, unit="prompt", leave=False, disable=not title) as bar:
        for batch in batches:
            answers = [keep[i] - 1 for i in batch]
            inputs = vlm.inputs([pictures[i] for i in batch], [suffixes[i] for i in batch], answers=answers)
            hidden = vlm.hidden(to_device(inputs, vlm.device)).last_hidden_state
            ends = [len(pictures[i].prefix) + len(suffixes[i]) for i in batch]
            yield from ((i, hidden[n, end - keep[i] : end]) for n, (i, end) in enumerate(zip(batch, ends, strict=True)))
            bar.update(len(batch))
        for group in groups:
            yield from states_from_cache(vlm, pictures, suffixes, keep, group)
            bar.update(sum(map(len, group)))


def grouped(shared: Sequence[list[int]], lengths: Sequence[int], batch_size: int) -> list[list[list[int]]]:
    """Batches of pictures (each the list of its prompts) of one prefix length and about `batch_size` prompts."""
    found: list[list[list[int]]] = []
    prompts, length = 0, -1
    for k in sorted(range(len(shared)), key=lambda k: lengths[k]):
        if lengths[k] != length or prompts + len(shared[k]) > batch_size:
            found.append([])
            prompts, length = 0, lengths[k]
        found[-1].append(shared[k])
        prompts += len(shared[k])
    return found


def packs(vlm: VLM, prompts: Sequence[int], suffixes: Sequence[list[int]]) -> list[list[int]]:
    """The prompts about one picture, as rows of up to PACKED tokens; one a row where the model takes no mask of our own."""
    config = vlm.core.config.get_text_config()
    masked = config._attn_implementation in ("eager", "sdpa", "plain")
    windowed = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    found: list[list[int]] = []
    room = 0
    for i in prompts:
        if not masked or windowed or len(suffixes[i]) > room:
            found.append([])
            room = PACKED
        found[-1].append(i)
        room -= len(suffixes[i])
    return found


def states_from_cache(
    vlm: VLM, pictures: Sequence[Encoded], suffixes: Sequence[list[int]], keep: Sequence[int], group: Sequence[list[int]]
) -> Iterator[Row]:
    """`last_states` of one group: a pass over its pictures, then one over all prompts about them."""
    inputs = to_device(vlm.inputs([pictures[rows[0]] for rows in group], [[]] * len(group)), vlm.device)
    model = vlm.core.base_model
    if hasattr(model, "rope_deltas"):
        model.rope_deltas = None  # of whatever was read before; without a picture there is none
    cache = model(**vlm.arguments(inputs), use_cache=True).past_key_values
    by_picture = [packs(vlm, prompts, suffixes) for prompts in group]
    rows = [row for packed in by_picture for row in packed]
    owner = torch.tensor([n for n, packed in enumerate(by_picture) for _ in packed], device=vlm.device)
    if len(rows) > len(group):
        cache.batch_select_indices(owner)
    past = inputs["input_ids"].shape[1]
    ids, positions, prompt = packed_rows(rows, suffixes, vlm.tokenizer.pad_token_id or 0)
    if any(len(row) > 1 for row in rows):
        mask = block_mask(prompt, past, vlm.head.dtype)
    else:
        mask = torch.cat([torch.ones(len(rows), past), prompt >= 0], 1).long()
    positions = (past + positions).to(vlm.device)
    # Families with positions in three dimensions count a picture shorter than its tokens; text goes on alike in all three.
    offset = getattr(model, "rope_deltas", None)
    if offset is not None:
        positions = (positions + offset.to(positions)[owner]).expand(3, -1, -1)
    output = model(
        input_ids=ids.to(vlm.device),
        attention_mask=mask.to(vlm.device),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    for n, row in enumerate(rows):
        end = 0
        for i in row:
            end += len(suffixes[i])
            yield i, output.last_hidden_state[n, end - keep[i] : end]


def packed_rows(rows: Sequence[Sequence[int]], suffixes: Sequence[list[int]], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts one behind the other: (ids, place of a token in its prompt, which prompt it belongs to, -1 for none), each [N, T]."""
    longest = max(sum(len(suffixes[i]) for i in row) for row in rows)
    ids, places, prompt = (
        torch.full((len(rows), longest), pad),
        torch.zeros(len(rows), longest, dtype=torch.long),
        torch.full((len(rows), longest), -1),
    )
    for n, row in enumerate(rows):
        at = 0
        for k, i in enumerate(row):
            here = slice(at, at + len(suffixes[i]))
            ids[n, here], places[n, here], prompt[n, here] = torch.tensor(suffixes[i]), torch.arange(len(suffixes[i])), k
            at = here.stop
    return ids, places, prompt


def block_mask(prompt: Tensor, past: int, dtype: torch.dtype) -> Tensor:
    """[N, 1, T, past + T], to be added to attention: every token sees the picture and what came before it in its own prompt."""
    length = prompt.shape[1]
    own = (prompt[:, :, None] == prompt[:, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()
    seen = torch.cat([torch.ones(len(prompt), length, past, dtype=torch.bool), own], 2)
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
