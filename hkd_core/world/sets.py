"""From stored pictures and examples to training sets, as every tuning notebook begins."""

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.data.schema import Pictures, load_examples, load_pictures
from hkd_core.data.wording import rotations
from hkd_core.models.vlm import VLM, Encoded, encode_all
from hkd_core.training.examples import TrainingSet
from hkd_core.world.tasks import LETTERS
from hkd_core.world.wording import WORDING

TASKS = ("task1", "task2")
REHEARSED = 0.1  # share of rehearsal beside a tuning set's examples, so that the models do not unlearn what they could do


def features_of(vlms: Mapping[str, VLM], folders: Sequence[Path], wanted: Collection[str]) -> dict[str, dict[str, Encoded]]:
    """model name -> image_id -> features, of the `wanted` pictures in the folders."""
    found: dict[str, dict[str, Encoded]] = {name: {} for name in vlms}
    for folder in folders:
        pictures = load_pictures(folder)
        some = pictures.table.select([i for i, image_id in enumerate(pictures.ids) if image_id in wanted])
        pictures = Pictures(some, pictures.where)
        for name, encoded in encode_all(vlms, pictures, title="seeing").items():
            found[name] |= dict(zip(pictures.ids, encoded, strict=True))
    return found


def with_rehearsal(examples: list[dict], rehearsal: Sequence[dict]) -> list[dict]:
    """The examples and a tenth as many of `rehearsal`, about pictures with labels among them, repeated if there are too few."""
    known = {row["image_id"] for row in examples if row["answer"]}
    fitting = [row for row in rehearsal if row["image_id"] in known]
    return examples + list(islice(cycle(fitting), round(REHEARSED * len(examples))))


def in_all_places(examples: Sequence[dict]) -> list[dict]:
    """Every example as often as there are letters, with lettered options at every place once. All keep their share of the set.

    This is option shuffling (DAS) in full: mapping shift at training time.
    """
    found = []
    for example in examples:
        places = rotations(example, WORDING)
        found += [places[turn % len(places)] for turn in range(len(LETTERS))]
    return found


def first_labelled(examples: Sequence[dict], labelled: int) -> list[dict]:
    """The examples about the first `labelled` pictures, and those that augmentation made from such examples.

    Raises UserError if there are fewer such pictures.
    """
    of = [row["meta"].get("of", row["image_id"]) for row in examples]
    there = list(dict.fromkeys(row["image_id"] for row in examples if "of" not in row["meta"]))
    if labelled > len(there):
        raise UserError(
            f"labels of {labelled} pictures wanted (params.yaml: data.tuned or ablations.labelled), only {len(there)} have some"
        )
    known = set(there[:labelled])
    return [row for image_id, row in zip(of, examples, strict=True) if image_id in known]


def tuning_set(
    vlms: Mapping[str, VLM], folder: Path, *, labelled: int, augmented: bool = False, unlabelled: int = 0, rehearsed: bool = True
) -> TrainingSet:
    """The examples of both tasks about the first `labelled` pictures, for models trained together. folder: the profile's data.

    augmented: add what 02_augment made of them, and put all options in all places. unlabelled: add so many examples about other
    pictures, without answers. rehearsed: add, at the end, presence questions and captions as the base models were instructed with.
    """
    folders, examples = [folder / "scenes/train"], load_examples(folder / "scenes/examples_train", *TASKS)
    if augmented:
        folders.append(folder / "augmented/pictures")
        examples += load_examples(folder / "augmented/examples", *TASKS)
    examples = first_labelled(examples, labelled)
    if unlabelled:
        examples += load_examples(folder / "scenes/examples_unlabelled", *TASKS)[:unlabelled]
    if rehearsed:
        examples = with_rehearsal(examples, load_examples(folder / "augmented/rehearsal"))
    if augmented:
        examples = in_all_places(examples)
    return TrainingSet(vlms, examples, features_of(vlms, folders, {row["image_id"] for row in examples}))
