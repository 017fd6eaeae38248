"""MME's hallucination subtasks (arXiv 2306.13394): two questions a picture, accuracy and accuracy+ in percent, added up.

An answer file has lines `image <tab> question <tab> truth <tab> answer`. As in MME's own script an answer is "yes" or "no" if it is
that word, else if its first four letters, lower case, hold one of the two; another answer is neither, and wrong.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.common.files import read_text

SUBTASKS = ("existence", "count", "position", "color")
PER_IMAGE = 2


def parse(answer: str) -> str:
    """ "yes", "no" or "other"."""
    text = answer.strip().lower()
    if text in ("yes", "no"):
        return text
    return next((word for word in ("yes", "no") if word in text[:4]), "other")


def subtask_scores(answers: Sequence[tuple[str, bool]]) -> dict:
    """answers: (image, right). n_images, acc (questions right), acc_plus (pictures with all questions right), score: their sum."""
    by_image: dict[str, list[bool]] = defaultdict(list)
    for image, right in answers:
        by_image[image].append(right)
    acc = 100 * sum(right for _, right in answers) / len(answers)
    acc_plus = 100 * sum(all(rights) for rights in by_image.values()) / len(by_image)
    return {"n_images": len(by_image), "acc": acc, "acc_plus": acc_plus, "score": acc + acc_plus}


def read_answers(path: Path) -> list[tuple[str, bool]]:
    """(image, right) for every line. Raises UserError naming file and line of a malformed one, or an image without its pair."""
    found = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) != 4:
            raise UserError(f"{path}:{number}: expected image, question, truth and answer between tabs, got {len(fields)} fields")
        image, _, truth, answer = fields
        if truth.strip().lower() not in ("yes", "no"):
            raise UserError(f'{path}:{number}: truth must be "Yes" or "No", got "{truth}"')
        found.append((image, parse(answer) == truth.strip().lower()))
    if not found:
        raise UserError(f"{path}: no lines in it")
    counts: dict[str, int] = defaultdict(int)
    for image, _ in found:
        counts[image] += 1
    odd = [image for image, count in counts.items() if count != PER_IMAGE]
    if odd:
        raise UserError(f"{path}: expected {PER_IMAGE} questions about each image, {odd[0]} has {counts[odd[0]]}")
    return found


def evaluate(folder: Path) -> dict:
    """Every subtask's scores and their `total`. Raises UserError naming what is missing."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    scores = {name: subtask_scores(read_answers(folder / f"{name}.txt")) for name in SUBTASKS}
    return scores | {"total": sum(s["score"] for s in scores.values())}
