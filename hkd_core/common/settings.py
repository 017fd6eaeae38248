"""What can be set: each key's meaning, unit, range and source, and the rules that hold between keys.

One class a section of params.yaml, strict and frozen (see `strict`). What a method takes (`PyramidSettings` and its like) is the
base of its section, which adds what only the study decides. Its defaults are the profile laptop's values, and two distortions that
every model can be shown; a profile gives every key.
A rule between keys stands in `contradictions`, never in a notebook. `python -m hkd_core.params` prints all of this with a profile's
values. `params` reads the file.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from hkd_core.common.strict import Strict

Divergence = Literal["forward_kl", "reverse_kl", "jsd", "skewed_forward_kl", "skewed_reverse_kl"]
ViewName = Literal["noise", "blur", "patches", "blank", "alike", "least", "shuffled", "none"]
ImageChange = Literal["jitter", "blur", "noise", "patch_drop"]
TextChange = Literal["paraphrase", "option_shuffle", "mirror", "polarity", "hard_negative", "counterfactual"]
# Each list repeats what the library offers, because the library needs torch and this module must load fast. A test compares them.
DIVERGENCES, VIEWS, IMAGE_CHANGES, TEXT_CHANGES = map(get_args, (Divergence, ViewName, ImageChange, TextChange))

Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=1, le=16)]
Weights = Annotated[tuple[Weight, ...], Field(min_length=1)]

MANY = ("a whole number of at least 1", lambda strength: strength >= 1 and strength == int(strength))
NO_STRENGTH = ("0 (there is no strength)", lambda strength: strength == 0)
STRENGTHS = {
    "noise": ("a whole number from 0 to 999 (a diffusion step)", lambda strength: strength in range(1000)),
    "blur": ("a sigma above 0", lambda strength: strength > 0),
    "patches": ("a share from 0 to 1", lambda strength: strength <= 1),
    **dict.fromkeys(("alike", "least", "shuffled"), MANY),
    **dict.fromkeys(("blank", "none"), NO_STRENGTH),
}

OURS = "our choice"
HKD, SEED, VCD = "HKD4VLM, arXiv 2506.13038", "SEED, arXiv 2507.04680", "VCD, arXiv 2311.16922"
SIZES = ("large", "medium", "small")


def key(sentence: str, unit: str = "", *, default: Any = ..., source: str = OURS, expected: str = "") -> Any:
    """A setting: what it means, its unit, its source; `expected` where the type cannot say what is allowed.

    default: for who makes the settings in Python; none if it must be given there, too.
    """
    return Field(default, description=sentence, json_schema_extra={"unit": unit, "source": source, "expected": expected})


class Data(Strict):
    """The built-in world: how many images, and what they look like."""

    train: Count = key("Training images, with and without labels.", "images")
    labelled: Count = key("The first so many training images have labels for both tasks. At most `train`.", "images")
    tuned: Count = key("The first so many labelled images are used for tuning: labels are scarce. At most `labelled`.", "images")
    val: Count = key("Validation images.", "images")
    test: Count = key("Test images.", "images")
    sizes: tuple[Side, Side] = key(
        "Smallest and largest side of an object.", "pixels", expected="[smallest, largest], from 1 to 16"
    )
    noise: Share = key("Standard deviation of the pixel noise. Pixel values run from 0 to 1.", "pixel value")
    pope_images: Count = key(
        "POPE, MME and captions use so many validation images and so many test images, or all if there are fewer.", "images"
    )

    def contradictions(self) -> Iterator[tuple[str, str, Any]]:
        if self.labelled > self.train:
            yield "labelled", f"at most train ({self.train})", self.labelled
        if self.tuned > self.labelled:
            yield "tuned", f"at most labelled ({self.labelled})", self.tuned
        if self.sizes[0] > self.sizes[1]:
            yield "sizes", "[smallest, largest], from 1 to 16", self.sizes


class Augment(Strict):
    """Diverse augmentation (DAS): more training examples, made from the labelled ones."""

    examples: Count = key("New examples to make.", "examples", source=f"{HKD} has augmentation; the number is our choice")
    images: tuple[ImageChange, ...] = key("Image changes to draw from. All keep the label. [] changes no image.")
    texts: Annotated[tuple[TextChange, ...], Field(min_length=1)] = key(
        "Text changes to draw from. Some keep, some flip the label."
    )


class BaseModels(Strict):
    """The base models: three sizes of LLaVA, trained from random weights and then biased on purpose."""

    widths: dict[str, Annotated[int, Field(ge=32, multiple_of=16)]] = key("Width of each language model, by size.", "features")
    layers: dict[str, Count] = key("Layers of each language model, by size.", "layers")
    vision_width: Annotated[int, Field(ge=32, multiple_of=32)] = key(
        "Width of the vision tower. A head has 32 features.", "features"
    )
    vision_layers: Count = key("Layers of the vision tower.", "layers")
    scenes: Count = key("Scenes for pretraining, both of the language models and of the vision tower.", "scenes")
    short_steps: dict[str, Count] = key("Steps on short exercises, by size. Fewer if the loss falls below short_loss.", "steps")
    short_loss: Positive = key("The loss at which short exercises end.", "nats")
    full_steps: dict[str, Count] = key("Steps on full exercises, by size.", "steps")
    vision_steps: Count = key("Steps of vision pretraining.", "steps")
    align_steps: Count = key("Steps that train the projector between vision tower and language model.", "steps")
    clean_steps: Count = key("Steps of instruction tuning on correct answers.", "steps")
    biased_steps: Count = key("Steps of instruction tuning on biased answers, which teach the model to hallucinate.", "steps")
    bias_popular: Share = key(
        "Probability that a biased answer affirms an absent object that fits the scene, for the most popular object.", "probability"
    )
    bias_rare: Share = key("The same probability for the rarest object. It is linear in rank between the two.", "probability")
    bias_captions: Share = key("Probability that a biased caption names an absent object.", "probability")

    def contradictions(self) -> Iterator[tuple[str, str, Any]]:
        if not set(SIZES) <= set(self.widths):
            yield "widths", f"at least the sizes {', '.join(SIZES)}", self.widths
        for name in ("layers", "short_steps", "full_steps"):
            if set(getattr(self, name)) != set(self.widths):
                yield name, f"the sizes of widths ({', '.join(self.widths)})", getattr(self, name)


class TrainSettings(Strict):
    """What every training takes."""

    steps: Count = key("Training steps.", "steps")
    batch_size: Count = key("Examples in a training batch.", "examples", default=64)
    learning_rate: Positive = key("Peak learning rate.", default=1e-3)


class TuneSettings(TrainSettings):
    """Settings of `tune` and `distil`."""

    kd_divergence: Divergence = key("Divergence of plain distillation.", default="forward_kl", source="arXiv 1503.02531")
    kd_temperature: Positive = key(
        "Temperature that softens both distributions in plain distillation.", default=2.0, source="arXiv 1503.02531; value ours"
    )
    kd_weight: Share = key(
        "Weight of the teacher in plain distillation. The labels have the rest.", default=0.5, source="arXiv 1503.02531; value ours"
    )


class Supervised(TuneSettings):
    """The baselines: every size tuned on labels, and plain distillation from the large model to the small one."""

    long_steps: Count = key(
        "Steps of the long controls and of plain distillation: as many as the small model has in HKD4VLM.", "steps"
    )


class DivergenceSettings(TrainSettings):
    """A training that minimises a divergence between models."""

    divergence: Divergence = key("Divergence between a model and those that teach it.", default="forward_kl")
    beta: Share = key(
        "Mixture weight of jsd and of the skewed divergences. The others ignore it.", default=0.5, source="arXiv 2306.13649, 2402.03898"
    )
    temperature: Positive = key("Temperature of the distributions.", default=2.0, source="arXiv 1503.02531; value ours")

    def contradictions(self) -> Iterator[tuple[str, str, Any]]:
        """A beta at which the divergence is 0 for every pair of distributions, so that nothing would be learned."""
        if self.divergence == "jsd" and self.beta in (0, 1):
            yield "beta", "a number between 0 and 1 for jsd, which is 0 for every pair at both", self.beta
        if self.divergence.startswith("skewed_") and self.beta == 1:
            yield "beta", f"a number below 1 for {self.divergence}, which is 0 for every pair there", self.beta


class PyramidSettings(DivergenceSettings):
    """Settings of `train_pyramid`."""

    steps: Count = key("Steps for each pair of neighbouring levels.", "steps")
    temperature: Positive = key("Temperature at the first step.", default=2.0, source="arXiv 1503.02531; value ours")
    final_temperature: Positive = key("Temperature at the last step. It moves there step by step.", default=2.0)
    down_weight: Weight = key("Weight of the loss from the level above to the level below.", default=1.0)
    feedback_weight: Weight = key(
        "Weight of the loss from the level below to the level above, on labelled examples only.", default=0.1
    )
    peer_weight: Weight = key(
        "Weight of the loss between models of one level.", default=0.5, source="mutual learning, arXiv 1706.00384; value ours"
    )


class Pyramid(PyramidSettings):
    """PPOD: neighbouring levels of a pyramid of models train together, on labels and on each other."""

    levels: Annotated[tuple[Annotated[tuple[str, ...], Field(min_length=1)], ...], Field(min_length=2)] = key(
        "The levels from top to bottom, each a list of sizes. A level teaches the next one. The small model is the last.",
        source=f"{HKD}; the levels are our choice",
        expected="at least two levels, each a list of sizes, none empty",
    )
    augmented: bool = key("Also train on augmented examples, and on lettered options in every order.", source=HKD)

    def contradictions(self) -> Iterator[tuple[str, str, Any]]:
        names = [name for level in self.levels for name in level]
        if len(set(names)) < len(names):
            yield "levels", "every size at most once", self.levels
        if self.levels[-1][0] != "small":
            yield "levels", '"small" first in the lowest level, which later stages refine and evaluate', self.levels
        if self.levels[0][0] == self.levels[-2][-1]:
            yield "levels", "two models above the lowest level, a teacher and an assistant for the refinement", self.levels
        yield from super().contradictions()


class TernarySettings(DivergenceSettings):
    """Settings of `refine`."""

    learning_rate: Positive = key("Peak learning rate.", default=1.5e-3)
    label_weight: Weight = key("Weight of the cross-entropy with the labels.", default=0.1)
    teacher_weight: Weight = key("Weight of the divergence from the teacher, the top of the pyramid.", default=0.35)
    assistant_weight: Weight = key("Weight of the divergence from the assistant, the level above the student.", default=0.35)
    self_weight: Weight = key("Weight of the divergence from the student's own answers before refinement.", default=0.2)
    relation_weight: Weight = key(
        "Weight of matching the assistant's relations between visual tokens and answer. 0: not computed.", default=0.0
    )
    hidden_weight: Weight = key(
        "Weight of matching the teacher's hidden states. 0: not computed.", default=0.0, source="arXiv 1412.6550; value ours"
    )
    gate: bool = key("Weight an example by how far the three models agree with each other and with the label.", default=False)


class Ternary(TernarySettings):
    """TCRD: the small model is refined against the large one, the medium one and its own earlier answers."""

    shifted_teachers: bool = key("Teachers answer with mapping shift: the mean over all orders of the options.", source=HKD)
    augmented: bool = key("Also train on augmented examples, and on lettered options in every order.", source=HKD)
    unlabelled: CountOrNone = key(
        "Examples about images without labels, or all if there are fewer. There the student learns from the teachers alone.",
        "examples",
    )


def as_written(number: float) -> float:
    """A whole number without its ".0"."""
    return int(number) if number == int(number) else number


class EvolveSettings(TrainSettings):
    """Settings of SEED: of the two searches, of lessons and of `evolve`."""

    steps: Count = key("Steps of the first round, on answers.", "steps")
    caption_steps: Count = key("Steps of every later round, on captions.", "steps", default=1000)
    learning_rate: Positive = key("Peak learning rate of the adapter.", default=3e-3)
    rank: Annotated[int, Field(ge=4, multiple_of=4)] = key(
        "Width of the adapter's bottleneck. The LoRA control has a quarter of it.", "features", default=64
    )
    layers: Count = key("The adapter changes so many layers, counted from the last, or all if there are fewer.", "layers", default=4)
    divergence: Divergence = key(
        "Divergence that the adapter minimises.", default="reverse_kl", source=f"{SEED}: mode seeking; reverse KL is our reading"
    )
    distortions: Annotated[tuple[tuple[ViewName, Weight], ...], Field(min_length=1)] = key(
        "What the model sees in place of the image, each with a strength. noise: diffusion step, 0 to 999. blur: sigma in pixels, "
        "above 0. patches: share dropped, 0 to 1. alike, least, shuffled: number of other images. blank, none: 0. "
        "Validation chooses one.",
        default=(("noise", 500), ("none", 0)),
        source=f"noise: {VCD}; the others are our choice",
        expected="a list of [view, strength], at least one",
    )
    alphas: Weights = key(
        "Strengths of the purge to try for questions. Validation chooses one.",
        default=(0.5, 1.0, 2.0, 4.0, 8.0),
        source=f"alpha of {VCD}; values ours",
    )
    text_alphas: Weights = key(
        "Strengths of the purge to try for captions, with the distortions.", default=(1.0,), source=f"alpha of {VCD}; values ours"
    )
    gammas: Weights = key(
        "Strengths to try for captions, with the model's own answers. 0, no purge, is always tried.", default=(0.5, 1.0, 1.5)
    )
    cutoffs: Annotated[tuple[Share, ...], Field(min_length=1)] = key(
        "Cutoffs to try for questions: a token stays if its probability is at least so large a share of the largest one.",
        "share of the largest probability",
        default=(0.0, 0.01, 0.1, 0.3),
        source=f"beta of {VCD}; values ours",
    )
    text_cutoff: Share = key(
        "The cutoff for captions.", "share of the largest probability", default=0.1, source=f"beta of {VCD}; value ours"
    )
    anchor_weight: Weight = key("Weight of forward KL to the base model where nothing is purged.", default=3.0)
    epsilon: Annotated[float, Field(gt=0, lt=1)] = key("Mass that smooths a purged distribution.", "probability", default=0.001)

    def contradictions(self) -> Iterator[tuple[str, str, Any]]:
        for number, (view, strength) in enumerate(self.distortions):
            expected, fits = STRENGTHS[view]
            if not fits(strength):
                yield f"distortions[{number}]", f"{expected} for {view}", as_written(strength)
        if len(set(self.distortions)) < len(self.distortions):
            yield "distortions", "each at most once", self.distortions


class SelfEvolution(EvolveSettings):
    """SEED: identify what a model says without looking, purge it, and distil the purged answers into an adapter."""

    model: Annotated[str, Field(pattern=r"^\w+/[\w.-]+$")] = key(
        "The model that evolves, under models/.", expected="text such as base_models/medium"
    )
    pictures: Count = key("Training images to ask about, without their labels, or all if there are fewer.", "images")
    questions: Count = key("Presence questions about each image.", "questions")
    captions: Count = key("Images that the model captions.", "images")
    full_rate: Positive = key("Peak learning rate of the control that tunes all weights of the language model.")
    rounds: Count = key("The largest number of rounds. Validation decides when to stop, and which round is kept.", "rounds")


class Evaluate(Strict):
    """Every model on every benchmark."""

    caption_images: Count = key("Test images to caption for CHAIR, or all of data.pope_images if those are fewer.", "images")
    bootstrap: Count = key("Bootstrap draws for each confidence interval.", "draws")
    max_new_tokens: Count = key("The largest number of tokens in a caption.", "tokens")


class Ablations(Strict):
    """What each part of HKD4VLM is worth. Not a part of `dvc repro`: run `make ablations`."""

    labelled: tuple[Count, ...] = key("Numbers of labelled images to tune on, besides data.tuned. At most data.labelled.", "images")
    variants: tuple[str, ...] = key("Variants of notebook 10 to run. [] runs its usual ones.")


class Profile(Strict):
    """All settings of one profile, and the rules that hold between its sections."""

    data: Data
    augment: Augment
    base_models: BaseModels
    supervised: Supervised
    pyramid: Pyramid
    ternary: Ternary
    self_evolution: SelfEvolution
    evaluate: Evaluate
    ablations: Ablations

    def contradictions(self) -> Iterator[tuple[str, str, Any]]:
        sizes = self.base_models.widths
        for name in (name for level in self.pyramid.levels for name in level):
            if name not in sizes:
                yield "pyramid.levels", f"sizes of base_models.widths ({', '.join(sizes)})", name
        folder, _, size = self.self_evolution.model.partition("/")
        if folder == "base_models" and size not in sizes:
            yield "self_evolution.model", f"base_models/ and one of {', '.join(sizes)}", self.self_evolution.model
        images = min(self.data.val, self.data.test, self.data.train, self.self_evolution.pictures)
        for number, (view, strength) in enumerate(self.self_evolution.distortions):
            if view in ("alike", "least", "shuffled") and strength >= images:
                yield f"self_evolution.distortions[{number}]", f"at most {images - 1} other images for {view}", as_written(strength)
        for labelled in self.ablations.labelled:
            if labelled > self.data.labelled:
                yield "ablations.labelled", f"at most data.labelled ({self.data.labelled})", labelled


STAGES: dict[str, type[Strict]] = dict(Profile.__annotations__)


class File(Strict):
    """params.yaml: which profile, which seed, and the profiles."""

    profile: Any = key("The profile that runs.", expected="the name of a profile")
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = key("Every random draw follows from it.")
    profiles: dict[str, Any] = key("The settings of each profile, by name.", expected="profiles by name")
