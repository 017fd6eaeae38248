"""From stored pictures and examples to training sets: the few lines that every tuning notebook begins with."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hkd_core.data.schema import Pictures, load_examples, load_pictures
from hkd_core.distill.examples import TrainingSet
from hkd_core.models.vlm import VLM, Encoded, encode_all

TASKS = ("task1", "task2")
REHEARSED = 0.1  # of a tuning set's examples: what the base models could already do, lest it be unlearned


def features_of(vlms: Mapping[str, VLM], folders: Sequence[Path], wanted: Collection[str]) -> dict[str, dict[str, Encoded]]:
    """model name -> image_id -> features, of the `wanted` pictures in the folders."""
    found: dict[str, dict[str, Encoded]] = {name: {} for name in vlms}
    for folder in folders:
        pictures = load_pictures(folder)
        some = pictures.table.select([i for i, image_id in enumerate(pictures.ids) if image_id in wanted])
        pictures = Pictures(some, pictures.where)
        for name, encoded in encode_all(vlms, pictures, show=True).items():
            found[name] |= dict(zip(pictures.ids, encoded, strict=True))
    return found


def with_rehearsal(examples: list[dict], rehearsal: Sequence[dict]) -> list[dict]:
    """The examples, and a tenth as many of `rehearsal`, of pictures that they are about."""
    known = {row["image_id"] for row in examples if row["answer"]}
    fitting = [row for row in rehearsal if row["image_id"] in known]
    return examples + fitting[: round(REHEARSED * len(examples))]


def tuning_set(
    vlms: Mapping[str, VLM], root: Path, *, augmented: bool = False, unlabelled: bool = False, rehearsed: bool = True
) -> TrainingSet:
    """The labelled examples of both tasks for models trained together.

    augmented: also what 02_augment made of them; unlabelled: also examples about the other pictures, whose answers nobody gave;
    rehearsed: also, as the last ones, presence questions and captions as the base models were instructed with.
    """
    folders, examples = [root / "data/scenes/train"], load_examples(root / "data/scenes/examples_train", *TASKS)
    if augmented:
        folders.append(root / "data/augmented/pictures")
        examples += load_examples(root / "data/augmented/examples", *TASKS)
    if unlabelled:
        examples += load_examples(root / "data/scenes/examples_unlabelled", *TASKS)
    if rehearsed:
        examples = with_rehearsal(examples, load_examples(root / "data/augmented/rehearsal"))
    return TrainingSet(vlms, examples, features_of(vlms, folders, {row["image_id"] for row in examples}))
