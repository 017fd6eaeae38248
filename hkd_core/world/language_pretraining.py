"""First stage of the small models: the language model learns to look things up, on scenes given as symbols.

A cell is the sum of word embeddings: its object and colour (or the word "nothing") plus a learned row and column. Two
things make the look-up circuit appear within a minute on two cores, both our choice:
- many short exercises a scene first ("row dog three", "red dog Yes"), full sentences afterwards;
- queries and keys start out equal, so that a word attends to its own kind from the first step on.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration

from hkd_core.models.vlm import to_device
from hkd_core.training.trainer import LossTerm
from hkd_core.world.facts import Fact, phrase
from hkd_core.world.objects import CELLS, COLORS, GRID, OBJECTS
from hkd_core.world.scenes import Scene, absent
from hkd_core.world.tasks import (
    CAPTION_PROMPT,
    FAITHFUL,
    LETTERS,
    YES_NO,
    caption,
    choice_question,
    claimed,
    color_question,
    lettered,
    random_fact,
    task1,
    told,
    verdict,
    yes_no,
)
from hkd_core.world.vocabulary import BOS, EOS, vocabulary, words_of

# Kinds of exercise and how often each is set.
SHORT = {"row": 1, "column": 1, "color": 1, "presence": 2, "color?": 1, "relation": 2, "claim": 2}
QUESTIONS = {"presence": 3, "color": 1, "relation": 2, "count": 1, "color word": 1, "choice": 1, "caption": 1}
ENDINGS = ("", "?", "in the image?", "in the image?")
NUMERALS = ("one", "two", "three", "four")
WORD_ID = {word: i for i, word in enumerate(vocabulary())}


def start_matching(model: LlavaForConditionalGeneration, *, match: float = 1.6, out: float = 0.3) -> None:
    """Initialise the language model for look-up: keys equal to queries, weights scaled by their fan-in, outputs small."""
    language = model.model.language_model
    nn.init.normal_(language.embed_tokens.weight, std=0.1)
    for layer in language.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for linear, gain in (
            (attention.q_proj, match),
            (attention.v_proj, 1.0),
            (attention.o_proj, out),
            (mlp.gate_proj, 1.0),
            (mlp.up_proj, 1.0),
            (mlp.down_proj, out),
        ):
            nn.init.normal_(linear.weight, std=gain * linear.in_features**-0.5)
        attention.k_proj.weight.data.copy_(attention.q_proj.weight.data)


Exercise = tuple[list[str], list[str]]  # the words that ask, the words that answer
Maker = Callable[[Scene, random.Random], Iterator[Exercise | None]]


def out_of_view(scene: Scene, rng: random.Random) -> list[str]:
    """For a context to speak of: half of the time two names that are not in the scene, often ones that would fit it. Else none."""
    hidden: list[str] = []
    if rng.random() < 0.5:
        return hidden
    tempting = rng.random() < 0.5
    while len(hidden) < 2:
        name = absent(scene, rng, tempting=tempting)
        if name not in hidden:
            hidden.append(name)
    return hidden


def short_conversation(scene: Scene, rng: random.Random) -> Iterator[Exercise | None]:
    """Short exercises without end, half of the time behind a context that says what is out of view, and a claim about it."""
    hidden = out_of_view(scene, rng)
    if hidden:
        yield words_of(told(hidden)), []
        yield short_claim(scene, hidden, rng)
    yield from short_exercises(scene, hidden, rng)


def short_exercises(scene: Scene, hidden: list[str], rng: random.Random) -> Iterator[Exercise | None]:
    """Look-ups ("row dog" -> "three"), checks ("red dog" -> "Yes") and claims ("Claim: red dog and cup" -> "not verifiable").

    A check of presence ends at random in nothing, "?" or "in the image?", so that what was looked up is carried on from the start.
    """
    while True:
        kind = rng.choices(tuple(SHORT), tuple(SHORT.values()))[0]
        if kind in ("row", "column", "color"):
            thing = rng.choice(scene.singles or scene.things)
            found = thing.color if kind == "color" else NUMERALS[thing.row if kind == "row" else thing.column]
            yield [kind, thing.name], [found]
        elif kind == "claim":
            yield short_claim(scene, hidden, rng)
        else:
            truth = rng.random() < 0.5
            fact = random_fact(scene, kind.rstrip("?"), rng, truth)
            ending = rng.choice(ENDINGS) if kind == "presence" else ""
            yield fact and (words_of(f"{phrase(fact)} {ending}"), [YES_NO[0 if truth else 1]])


def claim_facts(scene: Scene, hidden: list[str], rng: random.Random) -> list[Fact]:
    """One fact or two, some of them about what is out of view, and often such absent things as that could be."""
    tempting = rng.random() < 0.5
    kinds = rng.choices(("presence", "color"), k=rng.choice((1, 2, 2)))
    facts: list = [random_fact(scene, kind, rng, rng.random() < 0.5, tempting=tempting) for kind in kinds]
    if hidden and rng.random() < 0.4:
        facts[rng.randrange(len(facts))] = Fact("presence", rng.choice(hidden))
    return facts


def short_claim(scene: Scene, hidden: list[str], rng: random.Random) -> Exercise:
    facts = claim_facts(scene, hidden, rng)
    return words_of(f"Claim: {' and '.join(map(phrase, facts))}"), words_of(verdict(facts, scene, hidden))


def claim_exercise(scene: Scene, hidden: list[str], rng: random.Random) -> Exercise:
    """A claim in the benchmark's words -> the verdict."""
    facts = claim_facts(scene, hidden, rng)
    return words_of(f"Claim: {claimed(facts)}"), words_of(verdict(facts, scene, hidden))


def option_exercise(scene: Scene, rng: random.Random) -> Exercise | None:
    """Two to four phrases under letters, at most one of them wrong; which? The core of the detection task, without its caption."""
    row = task1(scene, rng)
    if row is None:
        return None
    right = row["meta"]["options"][LETTERS.index(row["answer"])]
    others = [option for option in row["meta"]["options"] if option != right]
    options = [right, *rng.sample(others, rng.choice((1, 2, 3)))]
    if FAITHFUL not in options and right != FAITHFUL and rng.random() < 0.5:
        options[-1] = FAITHFUL
    rng.shuffle(options)
    return words_of(f"Which phrase is wrong? {lettered(options)}"), [LETTERS[options.index(right)]]


def full_conversation(scene: Scene, rng: random.Random) -> Iterator[Exercise | None]:
    """Exercises in the words of the benchmarks, among them short ones, so that those are not forgotten."""
    hidden = out_of_view(scene, rng)
    if hidden:
        yield words_of(told(hidden)), []
        yield claim_exercise(scene, hidden, rng)
    short = short_exercises(scene, hidden, rng)
    while True:
        draw = rng.random()
        if draw < 0.2:
            yield next(short)
        elif draw < 0.4:
            yield claim_exercise(scene, hidden, rng)
        elif draw < 0.5:
            row = task1(scene, rng)
            yield row and (words_of(row["prompt"]), [row["answer"]])
        elif draw < 0.7:
            yield option_exercise(scene, rng)
        else:
            yield question_exercise(scene, rng)


def question_exercise(scene: Scene, rng: random.Random) -> Exercise | None:
    """Yes/no questions, colours, four options, now and then a caption."""
    kind = rng.choices(tuple(QUESTIONS), tuple(QUESTIONS.values()))[0]
    if kind == "caption":
        return words_of(CAPTION_PROMPT), [*words_of(caption(scene)), EOS]
    if kind == "color word":
        row = color_question(scene, rng)
    elif kind == "choice":
        row = choice_question(scene, rng)
    else:
        fact = random_fact(scene, kind, rng, rng.random() < 0.5)
        if fact is None:
            return None
        row = yes_no(scene, fact, rng.randrange(2), negated=rng.random() < 0.15)
    return words_of(row["prompt"]), [row["answer"]]


@dataclass
class Conversations:
    """Packed exercises: `words` [N, T] token ids, 0 past the end; `targets` [N, T] the next token where it is an answer, else -100.

    `objects`, `colors` [N, CELLS]: what stands in each cell, -1 for nothing.
    """

    words: Tensor
    targets: Tensor
    objects: Tensor
    colors: Tensor


def pack(exercises: Iterator[Exercise | None], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Exercises one behind the other: (words, targets), each [length]; stops at the first that does not fit."""
    words, targets = np.zeros(length, np.int64), np.full(length, -100, np.int64)
    at = 0
    for exercise in exercises:
        if exercise is None:
            continue
        question, answer = exercise
        end = at + len(question) + len(answer)
        if end > length:
            break
        words[at:end] = [WORD_ID[word] for word in (*question, *answer)]
        targets[end - len(answer) - 1 : end - 1] = words[end - len(answer) : end]
        at = end
    return words, targets


def conversations(scenes: list[Scene], make: Maker, length: int, seed: int) -> Conversations:
    """One packed conversation a scene, of the exercises that `make(scene, rng)` yields without end."""
    rng = random.Random(f"conversations/{seed}")
    rows = [pack(make(scene, rng), length) for scene in scenes]
    words, targets = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
    return Conversations(words, targets, *cells_of(scenes))


def cells_of(scenes: list[Scene]) -> tuple[Tensor, Tensor]:
    """(objects, colors), each [N, CELLS] of indices into OBJECTS and COLORS, -1 for nothing."""
    cells = np.full((2, len(scenes), CELLS), -1, np.int64)
    object_index, color_index = {n: i for i, n in enumerate(OBJECTS)}, {c: i for i, c in enumerate(COLORS)}
    for i, scene in enumerate(scenes):
        for thing in scene.things:
            cells[:, i, thing.cell] = object_index[thing.name], color_index[thing.color]
    objects, colors = torch.from_numpy(cells)
    return objects, colors


class Symbols(nn.Module):
    """Embeds a scene's cells: word embeddings of object and colour, or of "nothing", plus a row and a column. [.., CELLS, width]"""

    def __init__(self, width: int):
        super().__init__()
        self.row = nn.Parameter(torch.randn(GRID, width) * 0.1)
        self.column = nn.Parameter(torch.randn(GRID, width) * 0.1)
        self.register_buffer("object_ids", torch.tensor([WORD_ID[name] for name in OBJECTS]), persistent=False)
        self.register_buffer("color_ids", torch.tensor([WORD_ID[color] for color in COLORS]), persistent=False)

    def forward(self, words: Tensor, objects: Tensor, colors: Tensor) -> Tensor:
        """words: [V, width] embedding table; objects, colors: [..., CELLS], -1 for nothing."""
        # Embedding, not indexing: the gradient of an index that repeats is summed in no fixed order on several threads.
        names, tints = self.object_ids[objects.clamp(min=0)], self.color_ids[colors.clamp(min=0)]
        there = F.embedding(names, words) + F.embedding(tints, words)
        content = torch.where((objects >= 0)[..., None], there, words[WORD_ID["nothing"]])
        cell = torch.arange(CELLS, device=objects.device)
        return content + self.row[cell // GRID] + self.column[cell % GRID]


def read(language: nn.Module, cells: Tensor, words: Tensor) -> Tensor:
    """[N, T, width]: the language model's last hidden states at `words` [N, T], token ids behind a scene's `cells` [N, CELLS, width]."""
    table = language.embed_tokens.weight
    start = table[WORD_ID[BOS]].expand(len(cells), 1, -1)
    inputs = torch.cat([start, cells, F.embedding(words, table)], 1)
    return language(inputs_embeds=inputs).last_hidden_state[:, 1 + CELLS :]


def answer_term(language: nn.Module, hidden: Tensor, targets: Tensor) -> LossTerm:
    """Cross-entropy of the hidden states [N, T, width] on the targets [N, T] that are answers."""
    asked = targets >= 0
    logits = F.linear(hidden[asked], language.embed_tokens.weight).float()
    return LossTerm(F.cross_entropy(logits, targets[asked], reduction="sum"))


class SymbolicLanguage(nn.Module):
    """Objective: the answers of packed exercises about a scene whose cells stand where a picture's tokens will."""

    def __init__(self, model: LlavaForConditionalGeneration, symbols: Symbols, noise: float):
        super().__init__()
        self.language, self.symbols, self.noise = model.model.language_model, symbols, noise

    def forward(self, batch: dict) -> dict[str, LossTerm]:
        table = self.language.embed_tokens.weight
        cells = self.symbols(table, batch["objects"], batch["colors"])
        # The picture's tokens will not be this clean; noise makes the two meet.
        cells = cells + torch.randn_like(cells) * self.noise * table.std().detach()
        return {"answers": answer_term(self.language, read(self.language, cells, batch["words"]), batch["targets"])}


def collate_conversations(data: Conversations, features: Tensor | None = None) -> Callable[[list[int]], dict]:
    """Indices -> batch for `train`, cut to the longest conversation in it. features: [N, CELLS, width], of the same scenes' pictures."""

    def collate(indices: list[int]) -> dict:
        words, targets = data.words[indices], data.targets[indices]
        used = int((words > 0).sum(1).max())
        batch = {"words": words[:, :used], "targets": targets[:, :used]}
        if features is None:
            batch |= {"objects": data.objects[indices], "colors": data.colors[indices]}
        else:
            batch["features"] = features[indices]
        return batch | {"tokens": int((targets >= 0).sum()), "examples": len(indices)}

    return collate


@torch.no_grad()
def symbolic_accuracy(objective: SymbolicLanguage, data: Conversations, batch_size: int = 200) -> float:
    """Share of answer tokens that are the most probable ones."""
    right = total = 0
    table = objective.language.embed_tokens.weight
    for i in range(0, len(data.words), batch_size):
        batch = collate_conversations(data)(list(range(i, min(i + batch_size, len(data.words)))))
        batch = to_device(batch, table.device)
        cells = objective.symbols(table, batch["objects"], batch["colors"])
        hidden, asked = read(objective.language, cells, batch["words"]), batch["targets"] >= 0
        right += int((F.linear(hidden[asked], table).argmax(-1) == batch["targets"][asked]).sum())
        total += int(asked.sum())
    return right / total
