"""MME (arXiv 2306.13394): two questions a picture; accuracy and accuracy+ in percent, added up per subtask.

`total` is the sum over the four hallucination subtasks (at most 800). An answer file has lines `image <tab> question <tab> truth
<tab> answer`. As in MME's own script an answer is "yes" or "no" if it is that word. Else it is, if its first four letters, lower
case, hold one of the two. Another answer is unread, and wrong. `strict_total` is the total where our own rule (`replies.yes_no`)
reads the answers.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.evaluation.matching import question_text
from hkd_core.evaluation.records import Record, normal, read_records, reply_of
from hkd_core.evaluation.replies import final_reply, yes_no
from hkd_core.evaluation.rows import decoded, read_bytes, shown

SUBTASKS = ("existence", "count", "position", "color")
PERCEPTION = (*SUBTASKS, "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
PER_IMAGE = 2
TRUTH = ("truth", "answer", "gt", "label", "target")


@dataclass(frozen=True)
class Item:
    """One question: truth is "yes" or "no"; where: its place in a file."""

    image: str
    question: str
    truth: str
    answer: str
    where: str


def parse(answer: str) -> str:
    """ "yes", "no" or "other", as MME's script reads."""
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


def evaluate(tasks: Mapping[str, Sequence[Item]]) -> dict:
    """Every subtask's scores, the totals, degenerate answerers and unread counts. A total whose subtasks are not all there is None.

    tasks: subtask -> its questions; "missing" names the others.
    """
    scores = scored(tasks, lambda item: parse(item.answer))
    unread = {name: sum(parse(item.answer) == "other" for item in items) for name, items in tasks.items()}
    strict = scored(tasks, lambda item: yes_no(item.answer) or "other")
    degenerate = {f"all_{word}": totals(scored(tasks, lambda item, word=word: word)) for word in ("yes", "no")}
    more = {"strict_total": totals(strict)["total"], "degenerate": degenerate, "unread": unread | {"total": sum(unread.values())}}
    return scores | totals(scores) | more | {"missing": [name for name in (*PERCEPTION, *COGNITION) if name not in tasks]}


def scored(tasks: Mapping[str, Sequence[Item]], read: Callable[[Item], str]) -> dict:
    return {name: subtask_scores([(item.image, read(item) == item.truth) for item in items]) for name, items in tasks.items()}


def totals(scores: Mapping[str, Mapping]) -> dict:
    """`total` and `hallucination` (four subtasks, at most 800), `perception` (ten, 2000), `cognition` (four, 800)."""
    groups = {"total": SUBTASKS, "hallucination": SUBTASKS, "perception": PERCEPTION, "cognition": COGNITION}
    return {
        group: sum(scores[name]["score"] for name in names) if all(name in scores for name in names) else None
        for group, names in groups.items()
    }


def verdicts(tasks: Mapping[str, Sequence[Item]]) -> list[dict]:
    """One row a question: what was asked, answered and read, and whether it is right."""
    rows = []
    for name, items in tasks.items():
        for item in items:
            reading = parse(item.answer)
            row = {"subtask": name, "image": item.image, "question": item.question, "truth": item.truth, "answer": item.answer}
            rows.append(row | {"read": "" if reading == "other" else reading, "right": reading == item.truth})
    return rows


def read_tasks(path: Path, field: str | None = None) -> dict[str, list[Item]]:
    """Subtask -> its questions, from a folder of answer files or from one table (lmms-eval's sample log, VLMEvalKit's table).

    A folder holds `existence.txt` and so on, or folders of these names with one file a picture (lines question, truth, answer).
    A folder `MME_Benchmark` may be around them, and `questions_answers_YN` inside. Raises UserError for a folder without any
    subtask, and naming what is malformed.
    """
    if path.is_file() or (path.exists() and not path.is_dir()):
        return checked(table_tasks(path, field))
    if not path.is_dir():
        raise UserError(f"{path}: no such folder or file")
    for nested in ("MME_Benchmark", "MME_Benchmark_release_version"):
        path = path / nested if (path / nested).is_dir() else path
    found = {}
    for name in (*PERCEPTION, *COGNITION):
        if (path / f"{name}.txt").is_file():
            found[name] = lines_of(path / f"{name}.txt")
        elif (path / name).is_dir():
            inner = path / name / "questions_answers_YN"
            files = sorted((inner if inner.is_dir() else path / name).glob("*.txt"))
            found |= {name: [item for file in files for item in lines_of(file, image=file.stem)]} if files else {}
    if not found:
        raise UserError(
            f"{path}: none of MME's subtasks in it: expected existence.txt, count.txt and so on, or folders of these names"
        )
    return checked(found)


def lines_of(path: Path, image: str | None = None) -> list[Item]:
    """The questions of one file; image: the picture, if lines do not name it. Raises UserError naming file and line."""
    wanted = "image, question, truth and answer" if image is None else "question, truth and answer"
    found = []
    for number, line in enumerate(decoded(path, read_bytes(path)).split("\n"), 1):
        if not line.strip():
            continue
        fields = line.rstrip("\r").split("\t")
        fields = fields if image is None else [image, *fields]
        if len(fields) != 4:
            got = len(fields) - (image is not None)
            raise UserError(f"{path}:{number}: expected {wanted} between tabs, got {got} fields")
        truth = fields[2].strip().lower().rstrip(".")
        if truth not in ("yes", "no"):
            raise UserError(f'{path}:{number}: truth must be "Yes" or "No", got {shown(fields[2])}')
        found.append(Item(fields[0].strip(), fields[1].strip(), truth, final_reply(fields[3].strip()), f"{path}:{number}"))
    if not found:
        raise UserError(f"{path}: no lines in it")
    return found


def table_tasks(path: Path, field: str | None) -> dict[str, list[Item]]:
    known = {name.lower(): name for name in (*PERCEPTION, *COGNITION)}
    found: dict[str, list[Item]] = defaultdict(list)
    for record in read_records(path):
        category = record.text("category", "subtask", "task")
        if category.strip().lower() not in known:
            raise record.fail(f"no subtask of MME is called {shown(category)}")
        truth = record.text(*TRUTH).strip().lower().rstrip(".")
        if truth not in ("yes", "no"):
            raise record.fail(f'"{record.name_of(*TRUTH)}" must be "Yes" or "No", got {shown(truth)}')
        image = picture_of(record)
        item = Item(image, question_text(record), truth, reply_of(record, field=field, label=record.name_of(*TRUTH)), record.where)
        found[known[category.strip().lower()]].append(item)
    return dict(found)


def picture_of(record: Record) -> str:
    """lmms-eval names the picture in question_id ("existence/0006.png")."""
    named = record.optional("image_path", "image", "image_id", "image_name")
    return named if named and len(named) < 300 else record.key("question_id", "image_path", "image")


def checked(tasks: Mapping[str, list[Item]]) -> dict[str, list[Item]]:
    """Raises UserError for a question that occurs twice, and for a picture that has not its two questions, one yes and one no."""
    for items in tasks.values():
        seen: dict[tuple[str, str, str], Item] = {}
        by_image: dict[str, list[Item]] = defaultdict(list)
        for item in items:
            first = seen.setdefault((item.image, normal(item.question), item.truth), item)
            if first is not item:
                raise UserError(f"{item.where}: this question about {shown(item.image)} occurs twice, first at {first.where}")
            by_image[item.image].append(item)
        for image, asked in by_image.items():
            if len(asked) != PER_IMAGE:
                raise UserError(
                    f"{asked[-1].where}: expected {PER_IMAGE} questions about each image, {shown(image)} has {len(asked)}"
                )
    return dict(tasks)
