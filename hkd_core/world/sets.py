"""From stored pictures and examples to training sets: the few lines that every tuning notebook begins with."""

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.data.schema import Pictures, load_examples, load_pictures
from hkd_core.hkd.mapping_shift import shifted
from hkd_core.models.vlm import VLM, Encoded, encode_all
from hkd_core.training.examples import TrainingSet
from hkd_core.world.tasks import LETTERS
from hkd_core.world.wording import WORDING

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
    """The examples, and a tenth as many of `rehearsal`, of pictures that they tell a label of, over and over if there are few."""
    known = {row["image_id"] for row in examples if row["answer"]}
    fitting = [row for row in rehearsal if row["image_id"] in known]
    return examples + list(islice(cycle(fitting), round(REHEARSED * len(examples))))


def rotated(example: dict, turn: int) -> dict:
    """The example with its lettered options moved on by `turn` places, and its answer with them; itself where it has none.

    Option shuffling (DAS) in its fullest: mapping shift at training time.
    """
    options = example["meta"].get("options")
    if not options or not turn % len(options):
        return example
    variant, places = shifted(example, WORDING)[turn % len(options)]
    answer = example["choices"][places[example["choices"].index(example["answer"])]] if example["answer"] else ""
    turn %= len(options)
    return variant | {"answer": answer, "meta": example["meta"] | {"options": options[turn:] + options[:turn]}}


def in_all_places(examples: Sequence[dict]) -> list[dict]:
    """Every example as often as there are letters, lettered options at every place once: all keep their share of the set."""
    return [rotated(example, turn) for example in examples for turn in range(len(LETTERS))]


def first_labelled(examples: Sequence[dict], labelled: int) -> list[dict]:
    """Those of the examples that are about the first `labelled` pictures, or were made of one about them.

    Raises UserError if there are fewer such pictures.
    """
    of = [row["meta"].get("of", row["image_id"]) for row in examples]
    there = list(dict.fromkeys(row["image_id"] for row in examples if "of" not in row["meta"]))
    if labelled > len(there):
        raise UserError(
            f"labels of {labelled} pictures wanted (params.yaml: data.tuned or ablations.labels), only {len(there)} have some"
        )
    known = set(there[:labelled])
    return [row for image_id, row in zip(of, examples, strict=True) if image_id in known]


def tuning_set(
    vlms: Mapping[str, VLM], root: Path, *, labelled: int, augmented: bool = False, unlabelled: int = 0, rehearsed: bool = True
) -> TrainingSet:
    """The examples of both tasks about the first `labelled` pictures, for models trained together.

    augmented: also what 02_augment made of them, and everything with its options in all places. unlabelled: also that many examples
    about the other pictures, whose answers nobody gave. rehearsed: also, as the last ones, presence questions and captions as the
    base models were instructed with.
    """
    folders, examples = [root / "data/scenes/train"], load_examples(root / "data/scenes/examples_train", *TASKS)
    if augmented:
        folders.append(root / "data/augmented/pictures")
        examples += load_examples(root / "data/augmented/examples", *TASKS)
    examples = first_labelled(examples, labelled)
    if unlabelled:
        examples += load_examples(root / "data/scenes/examples_unlabelled", *TASKS)[:unlabelled]
    if rehearsed:
        examples = with_rehearsal(examples, load_examples(root / "data/augmented/rehearsal"))
    if augmented:
        examples = in_all_places(examples)
    return TrainingSet(vlms, examples, features_of(vlms, folders, {row["image_id"] for row in examples}))
