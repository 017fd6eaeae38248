"""Hidden states after prompts about pictures, each picture read once however many prompts ask about it.

The picture's tokens come first, so their keys and values do not depend on the prompt: one pass over the picture fills a cache,
and every prompt about it goes on from there. With 576 visual tokens and six short questions that saves four fifths of the work.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from hkd_core.models.vlm import VLM, Encoded, to_device

Row = tuple[int, Tensor]  # which prompt, its last hidden states


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

    pictures: what each suffix is about; the same object for the same picture. keep: how many of the last states are wanted.
    """
    owners: dict[int, list[int]] = {}
    for i, picture in enumerate(pictures):
        owners.setdefault(id(picture), []).append(i)
    alone = [rows[0] for rows in owners.values() if len(rows) == 1]
    shared = [rows for rows in owners.values() if len(rows) > 1]
    # Rows of like length share a batch, so that little is padded; the pictures of a batch have prefixes of one length.
    alone.sort(key=lambda i: len(suffixes[i]))
    batches = [alone[i : i + batch_size] for i in range(0, len(alone), batch_size)]
    groups = grouped(shared, [len(pictures[rows[0]].prefix) for rows in shared], batch_size)
    with tqdm(total=len(batches) + len(groups), desc=title, unit="batch", leave=False, disable=not title) as bar:
        for batch in batches:
            inputs = vlm.inputs([pictures[i] for i in batch], [suffixes[i] for i in batch])
            hidden = vlm.hidden(to_device(inputs, vlm.device)).last_hidden_state
            ends = [len(pictures[i].prefix) + len(suffixes[i]) for i in batch]
            yield from ((i, hidden[n, end - keep[i] : end]) for n, (i, end) in enumerate(zip(batch, ends, strict=True)))
            bar.update()
        for group in groups:
            yield from states_from_cache(vlm, pictures, suffixes, keep, group)
            bar.update()


def grouped(shared: Sequence[list[int]], lengths: Sequence[int], batch_size: int) -> list[list[list[int]]]:
    """Batches of pictures (each the list of its rows) of one prefix length and about `batch_size` rows."""
    found: list[list[list[int]]] = []
    rows, length = 0, -1
    for k in sorted(range(len(shared)), key=lambda k: lengths[k]):
        if lengths[k] != length or rows + len(shared[k]) > batch_size:
            found.append([])
            rows, length = 0, lengths[k]
        found[-1].append(shared[k])
        rows += len(shared[k])
    return found


def states_from_cache(
    vlm: VLM, pictures: Sequence[Encoded], suffixes: Sequence[list[int]], keep: Sequence[int], group: Sequence[list[int]]
) -> Iterator[Row]:
    """`last_states` of one group: a pass over its pictures, then one over all prompts about them."""
    inputs = to_device(vlm.inputs([pictures[rows[0]] for rows in group], [[]] * len(group)), vlm.device)
    model = vlm.core.model
    cache = model(**vlm.arguments(inputs), use_cache=True).past_key_values
    owner = torch.tensor([n for n, rows in enumerate(group) for _ in rows], device=vlm.device)
    cache.batch_select_indices(owner)
    flat = [i for rows in group for i in rows]
    longest, past = max(len(suffixes[i]) for i in flat), inputs["input_ids"].shape[1]
    ids = torch.full((len(flat), longest), vlm.tokenizer.pad_token_id or 0)
    mask = torch.ones(len(flat), past + longest, dtype=torch.long)
    for n, i in enumerate(flat):
        ids[n, : len(suffixes[i])] = torch.tensor(suffixes[i])
        mask[n, past + len(suffixes[i]) :] = 0
    positions = past + torch.arange(longest, device=vlm.device).expand(len(flat), -1)
    # Families with positions in three dimensions count a picture shorter than its tokens; text goes on alike in all three.
    offset = getattr(model, "rope_deltas", None)
    if offset is not None:
        positions = (positions + offset.to(positions)[owner]).expand(3, -1, -1)
    output = model(
        input_ids=ids.to(vlm.device), attention_mask=mask.to(vlm.device), position_ids=positions, past_key_values=cache, use_cache=True
    )
    for n, i in enumerate(flat):
        yield i, output.last_hidden_state[n, len(suffixes[i]) - keep[i] : len(suffixes[i])]
