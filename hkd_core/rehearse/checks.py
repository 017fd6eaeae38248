"""The checks of `conformance`: each compares a family's miniature through the library with the plain model, one picture at a time.

A check returns the largest difference, 0 where there is nothing to measure, and raises Differs.
"""

import copy
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hkd_core.data.wording import Wording
from hkd_core.hkd import PyramidSettings, TernarySettings, refine, train_pyramid
from hkd_core.hkd.mapping_shift import shifted, shifted_scores
from hkd_core.inference import contrastive, generate, score_choices
from hkd_core.inference.scoring import choice_tokens
from hkd_core.inference.views import with_ids
from hkd_core.models import VLM, HallucinationEliminationAdapter, load_vlm
from hkd_core.models.vlm import encode_all
from hkd_core.rehearse.miniatures import build
from hkd_core.rehearse.plain import Plain
from hkd_core.seed import EvolveSettings, evolve
from hkd_core.seed.evolve import Evolution
from hkd_core.seed.lessons import Lesson
from hkd_core.training.examples import TrainingSet
from hkd_core.training.objectives import Supervised
from hkd_core.training.tuning import TuneSettings, tune

CLOSE = 1e-4  # float32; log-probabilities and logits
SIZES = ((64, 48), (48, 64), (120, 40), (96, 96))  # width and height of four pictures that share every batch
QUESTION, DESCRIBE = "Is there a dog in the image?", "Describe the image."
CHOICES = ["Yes", "No", "a red cup on the table"]  # of one token or several
NEW_TOKENS = 5


class Differs(AssertionError):
    """A family does not do what its plain model does; says what, and by how much."""


class Options(Wording):
    """Lettered options, so that mapping shift has something to shift."""

    def list_options(self, options: Sequence[str]) -> str:
        return " ".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False))


def pictures() -> list[Image.Image]:
    """Four pictures of different sizes, random but always the same."""
    numbers = np.random.default_rng(0)
    return [Image.fromarray(numbers.integers(0, 256, (height, width, 3), np.uint8)) for width, height in SIZES]


class Bench:
    """One family's miniature, loaded by the library and by transformers."""

    def __init__(self, family: str, folder: Path):
        self.family, self.pictures = family, pictures()
        self.folder = build(family, folder / family)
        self.vlm = load_vlm(self.folder, device="cpu")

    @cached_property
    def plain(self) -> Plain:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        model = AutoModelForImageTextToText.from_pretrained(self.folder, attn_implementation="eager").eval()
        return Plain(model, AutoProcessor.from_pretrained(self.folder))

    @cached_property
    def seen(self) -> list:
        """The four pictures as the library encodes them, in one batch."""
        return encode_all({"": self.vlm}, self.pictures)[""]

    def examples(self, choices: Sequence[str] = CHOICES, prompt: str = QUESTION) -> list[dict]:
        return [{"image": picture, "prompt": prompt, "choices": list(choices)} for picture in self.pictures]

    def copied(self) -> VLM:
        """A model of the same weights that can be changed."""
        return VLM(copy.deepcopy(self.vlm.model), self.vlm.processor, self.family)


def close(what: str, found: Any, expected: Any, tolerance: float = CLOSE) -> float:
    """The largest difference of two equal shapes. Raises Differs above the tolerance."""
    found, expected = (torch.as_tensor(np.asarray(x, dtype=np.float64)) for x in (found, expected))
    size = float((found - expected).abs().nan_to_num(nan=torch.inf).max())
    if not size <= tolerance:
        raise Differs(f"{what}: differs by {size:.2g}")
    return size


def demand(fine: bool, what: str) -> None:
    if not fine:
        raise Differs(what)


def plain_scores(bench: Bench, picture: Image.Image, prompt: str, choices: Sequence[str]) -> list[float]:
    inputs = bench.plain.inputs(picture, prompt)
    return [bench.plain.score(inputs, tokens) for tokens in choice_tokens(bench.vlm, prompt, choices)]


def token_ids(bench: Bench) -> float:
    """Ids of picture and prompt equal the processor's own; training targets end with a token that ends an answer; one BOS."""
    bos = bench.vlm.tokenizer.bos_token_id
    for picture, encoded in zip(bench.pictures, bench.seen, strict=True):
        for prompt in (QUESTION, DESCRIBE, " Two  spaces "):
            expected = bench.plain.inputs(picture, prompt)["input_ids"][0].tolist()
            demand(encoded.prefix + bench.vlm.suffix(prompt) == expected, f"token ids of {prompt!r} differ")
        demand(bos is None or expected.count(bos) <= 1, "BOS stands twice")
    closed = bench.vlm.suffix(DESCRIBE, "A red cup", closed=True)
    demand(closed[: len(asked := bench.vlm.suffix(DESCRIBE))] == asked, "an answer changes its prompt's tokens")
    configured = bench.plain.model.generation_config.eos_token_id
    ends = {bench.vlm.tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    demand(closed[-1] in ends and not ends & set(closed[len(asked) : -1]), "a training target does not end with an end token")
    return 0.0


def scores(bench: Bench) -> float:
    """Log-probabilities of choices, four pictures in one batch."""
    found = score_choices(bench.vlm, bench.examples())
    expected = [plain_scores(bench, picture, QUESTION, CHOICES) for picture in bench.pictures]
    return close("log-probabilities", found, expected)


def shared_prefixes(bench: Bench) -> float:
    """The same for several prompts about each picture, which is read once."""
    prompts = [QUESTION, DESCRIBE, "What colour is the cup on the table? Answer the question using a single word or phrase."]
    rows = [row for prompt in prompts for row in bench.examples(prompt=prompt)]
    expected = [plain_scores(bench, row["image"], row["prompt"], CHOICES) for row in rows]
    return close("log-probabilities", score_choices(bench.vlm, rows), expected)


def generation(bench: Bench) -> float:
    """Greedy text, four pictures in one batch padded left; sampling settings of the checkpoint change nothing."""
    kept = bench.vlm.core.generation_config
    found = generate(bench.vlm, [DESCRIBE] * 4, bench.seen, max_new_tokens=NEW_TOKENS)
    strange = copy.deepcopy(kept)
    strange.update(do_sample=True, top_p=0.01, top_k=1, repetition_penalty=9.0)
    bench.vlm.core.generation_config = strange
    again = generate(bench.vlm, [DESCRIBE] * 4, bench.seen, max_new_tokens=NEW_TOKENS)
    free = generate(bench.vlm, [DESCRIBE] * 4, bench.seen, max_new_tokens=NEW_TOKENS, temperature=5.0, seed=1)
    bench.vlm.core.generation_config = kept
    sampled = generate(bench.vlm, [DESCRIBE] * 4, bench.seen, max_new_tokens=NEW_TOKENS, temperature=5.0, seed=1)
    tokens = [bench.plain.generated(bench.plain.inputs(picture, DESCRIBE), NEW_TOKENS) for picture in bench.pictures]
    demand(len({text for text in found if text}) > 1, "the miniature says too little to be compared")
    demand(found == texts(bench, tokens), "generated text differs")
    demand(again == found and free == sampled, "settings of the generation config stay active")
    return 0.0


def texts(bench: Bench, tokens: Sequence[Sequence[int]]) -> list[str]:
    """Tokens as the text that `generate` returns."""
    plain = bench.vlm.tokenizer.batch_decode([list(row) for row in tokens], skip_special_tokens=True)
    return [text.replace(" .", ".").replace(" ,", ",").replace(" ?", "?").strip() for text in plain]


def mapping_shift(bench: Bench) -> float:
    """Scores averaged over rotated options."""
    wording, options = Options(), ["dog", "cup", "cat"]
    prompt = f"What is it? {wording.list_options(options)}"
    rows = [row | {"meta": {"options": options}} for row in bench.examples("ABC", prompt)]
    found = shifted_scores(bench.vlm, rows, bench.seen, wording)
    expected = []
    for row in rows:
        total = np.zeros(3)
        for variant, places in shifted(row, wording):
            logp = np.array(plain_scores(bench, row["image"], variant["prompt"], "ABC"))
            total += (logp - np.logaddexp.reduce(logp))[places]
        expected.append(total / 3)
    return close("shifted scores", found, expected)


def contrast(bench: Bench) -> float:
    """Contrastive decoding: without a picture, and with another picture in its place. The plain model is asked for each token."""
    alpha, cutoff = 0.7, 0.1
    others = [*range(1, 4), 0]
    views = {"none": [bench.vlm.without_picture(picture) for picture in bench.seen], "shuffled": [bench.seen[k] for k in others]}
    for view, shown in views.items():
        processor = contrastive(bench.vlm, [shown], view, alpha=alpha, cutoff=cutoff)
        found = generate(bench.vlm, [DESCRIBE] * 4, bench.seen, max_new_tokens=NEW_TOKENS, processor=processor)
        tokens = []
        for picture, other in zip(bench.pictures, others, strict=True):
            clean = bench.plain.inputs(picture, DESCRIBE)
            blind = bench.plain.blind(picture, DESCRIBE) if view == "none" else bench.plain.inputs(bench.pictures[other], DESCRIBE)
            tokens.append(purged_tokens(bench.plain, clean, blind, bench.vlm.ends, alpha, cutoff))
        demand(found == texts(bench, tokens), f"contrastive decoding differs (view {view})")
    return 0.0


def purged_tokens(plain: Plain, clean: dict, blind: dict, ends: Sequence[int], alpha: float, cutoff: float) -> list[int]:
    """Contrastive decoding by its formula (arXiv 2311.16922), one whole pass a token."""
    found: list[int] = []
    while len(found) < NEW_TOKENS and not (found and found[-1] in ends):
        seen, unseen = (plain.logits(inputs, found)[-1].double() for inputs in (clean, blind))
        purged = (1 + alpha) * seen - alpha * unseen
        likely = seen.softmax(-1) >= cutoff * seen.softmax(-1).max()
        found.append(int(purged.masked_fill(~likely, -torch.inf).argmax()))
    return found


def state(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def only_language_learns(vlm: VLM, before: dict[str, Tensor], what: str) -> None:
    """What changed lies in the language model or its head."""
    decoder = {id(p) for p in vlm.core.get_decoder().parameters()} | {id(vlm.head)}
    free = {name for name, p in vlm.core.named_parameters(remove_duplicate=False) if id(p) in decoder}
    changed = {name for name, tensor in state(vlm.core).items() if not torch.equal(tensor, before[name])}
    demand(bool(changed), f"{what}: nothing was learned")
    demand(changed <= free, f"{what}: other parts changed: {', '.join(sorted(changed - free)[:2])}")


def labelled(bench: Bench) -> list[dict]:
    answers = [{"choices": ["Yes", "No"], "answer": "Yes"}, {"choices": ["Yes", "No"], "answer": "No"}]
    questions = [row | answers[k % 2] for k, row in enumerate(bench.examples())]
    return [*questions, *(row | {"choices": [], "answer": "A red cup."} for row in bench.examples(prompt=DESCRIBE)[:2])]


def tuning(bench: Bench) -> float:
    """The loss on labels is the plain model's, and one step changes the language model alone."""
    vlm, rows = bench.copied(), labelled(bench)
    before = state(vlm.core)
    data = TrainingSet.of_examples({"student": vlm}, rows)
    batch = data.collate(range(len(rows)))
    with torch.no_grad():
        term = Supervised(vlm)(batch)["labels"]
    loss = 0.0
    for row in rows:
        bare = bench.vlm.suffix(row["prompt"])
        target = bench.vlm.suffix(row["prompt"], row["answer"], closed=not row["choices"])[len(bare) :]
        loss -= bench.plain.score(bench.plain.inputs(row["image"], row["prompt"]), target)
    tune(vlm, data, TuneSettings(steps=1, batch_size=len(rows), learning_rate=1e-3), seed=0)
    only_language_learns(vlm, before, "SFT")
    return close("loss", float(term.total) / batch["labelled"], loss / batch["labelled"])


def pyramid(bench: Bench) -> float:
    """One step of PPOD."""
    models = {"teacher": bench.copied(), "student": bench.copied()}
    before = {name: state(vlm.core) for name, vlm in models.items()}
    train_pyramid(models, labelled(bench), PyramidSettings(steps=1, batch_size=6), seed=0)
    for name, vlm in models.items():
        only_language_learns(vlm, before[name], f"PPOD {name}")
    return 0.0


def ternary(bench: Bench) -> float:
    """One step of TCRD with relations and hidden states; the frozen models stay."""
    student, others = bench.copied(), [bench.copied(), bench.copied()]
    before = state(student.core)
    settings = TernarySettings(steps=1, batch_size=4, relation_weight=1.0, hidden_weight=1.0)
    refine(student, *others, labelled(bench), settings, seed=0)
    only_language_learns(student, before, "TCRD")
    for vlm in others:
        demand(all(torch.equal(tensor, before[name]) for name, tensor in state(vlm.core).items()), "TCRD: a frozen model changed")
    return 0.0


def evolution(bench: Bench, learner: str) -> float:
    """One step of SEED with a learner: only the learner changes, and it loads as it was saved."""
    vlm = bench.copied()
    before = state(vlm.core)
    rows = with_ids(labelled(bench)[:4])
    features = dict(zip((row["image_id"] for row in rows), bench.seen, strict=True))
    data = TrainingSet({"student": vlm}, rows, {"student": features})
    numbers = torch.Generator().manual_seed(0)
    counts = [length - prompt for length, prompt in zip(data.lengths, data.prompts, strict=True)]
    targets = [torch.randn(count, len(vlm.head), generator=numbers).log_softmax(-1) for count in counts]
    lesson = Lesson(rows, targets, [False] * len(rows))
    settings = EvolveSettings(steps=1, batch_size=4, learning_rate=1e-2, rank=4, layers=2)
    found = evolve(vlm, [lesson], settings, features=features, seed=0, learner=learner)
    if learner == "adapter":
        demand(any(bool(block.up.weight.any()) for block in found.adapter.blocks), "SEED: the adapter learned nothing")
        demand(all(torch.equal(t, before[name]) for name, t in state(vlm.core).items()), "SEED: the base changed")
        return loaded_again(bench, found)
    learned = [name for name, p in vlm.model.named_parameters() if "lora_B" in name and bool(p.any())]
    inside = {id(p) for p in vlm.core.get_decoder().parameters()}
    outside = [name for name, p in vlm.core.named_parameters() if "lora_" in name and id(p) not in inside]
    demand(bool(learned) and not outside, "LoRA: learned nothing, or stands outside the language model")
    base = {name.replace(".base_layer", ""): t for name, t in state(vlm.core).items() if "lora_" not in name}
    demand(all(torch.equal(t, before[name]) for name, t in base.items()), "LoRA: the base changed")
    return loaded_again(bench, found)


def loaded_again(bench: Bench, found: Evolution) -> float:
    """What was learned answers the same after it is saved and loaded beside the base, and not as the base does."""
    folder = bench.folder.parent / f"{bench.family}-learned"
    shutil.rmtree(folder, ignore_errors=True)
    found.save(folder)
    expected = score_choices(found.vlm, bench.examples())
    demand(expected != score_choices(bench.vlm, bench.examples()), "what was learned changes no answer")
    return close("after loading", score_choices(load_vlm(bench.folder, folder, device="cpu"), bench.examples()), expected)


def seed_step(bench: Bench) -> float:
    return evolution(bench, "adapter")


def lora_step(bench: Bench) -> float:
    return evolution(bench, "lora")


def adapter(bench: Bench) -> float:
    """HEA: attached it acts, off it changes no bit, and it loads as it was saved."""
    vlm = bench.vlm
    base = score_choices(vlm, bench.examples())
    torch.manual_seed(0)
    hea = HallucinationEliminationAdapter(vlm.head.shape[1], rank=4, layers=2)
    for block in hea.blocks:
        torch.nn.init.normal_(block.up.weight, std=0.5)
    grads = {name: p.requires_grad for name, p in vlm.core.named_parameters()}
    hea.attach(vlm.model)
    on = score_choices(vlm, bench.examples())
    hea.enabled = False
    off = score_choices(vlm, bench.examples())
    hea.detach()
    for name, p in vlm.core.named_parameters():
        p.requires_grad_(grads[name])
    demand(off == base and on != base, "HEA: off it changes the model, or on it does not")
    hea.save_pretrained(bench.folder.parent / f"{bench.family}-hea")
    loaded = load_vlm(bench.folder, adapter=bench.folder.parent / f"{bench.family}-hea", device="cpu")
    return close("HEA after loading", score_choices(loaded, bench.examples()), on)


def half_precision(bench: Bench) -> float:
    """bfloat16: finite, and near float32. The rounding of 8 bits stands in the table."""
    vlm = load_vlm(bench.folder, device="cpu", dtype="bfloat16")
    return close("bf16", score_choices(vlm, bench.examples()), score_choices(bench.vlm, bench.examples()), tolerance=0.5)


CHECKS: dict[str, Callable[[Bench], float]] = {
    "ids": token_ids,
    "scores": scores,
    "shared": shared_prefixes,
    "generate": generation,
    "shift": mapping_shift,
    "contrast": contrast,
    "SFT": tuning,
    "PPOD": pyramid,
    "TCRD": ternary,
    "SEED": seed_step,
    "LoRA": lora_step,
    "HEA": adapter,
    "bf16": half_precision,
}
