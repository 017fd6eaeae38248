"""MME's folders: a subtask is a folder with a text of two questions for each picture, or a table with the columns of lmms-lab/MME.

Two layouts are in the published archive. Split: `images/` and `questions_answers_YN/`. Flat: picture and text side by side.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hkd_core.evaluation.matching import question_text
from hkd_core.evaluation.mme import COGNITION, PER_IMAGE, PERCEPTION, SUBTASKS, TRUTH
from hkd_core.evaluation.records import Record
from hkd_core.evaluation.rows import decoded, read_bytes, shown
from hkd_core.sources.source import YES_NO, Source

ALL = (*PERCEPTION, *COGNITION)
NESTED = ("MME_Benchmark_release_version", "MME_Benchmark")
ENDINGS = (".jpg", ".png", ".jpeg")


def root_of(folder: Path) -> Path | None:
    """The folder that holds the subtasks' folders: `folder` or one nested in it; None if this is not MME."""
    for _ in range(len(NESTED) + 1):
        if any(_texts(folder / name) for name in ALL):
            return folder
        folder = next((folder / name for name in NESTED if (folder / name).is_dir()), folder)
    return None


def _texts(folder: Path) -> list[Path]:
    inner = folder / "questions_answers_YN"
    return sorted((inner if inner.is_dir() else folder).glob("*.txt")) if folder.is_dir() else []


def read(root: Path) -> Source:
    """Examples of the task "mme"; `meta` {subtask}; image_id "existence/0006.jpg". root: see `root_of`."""
    source, layouts = Source("mme", [root]), {}
    for name in ALL:
        texts = _texts(root / name)
        if texts:
            layouts[name] = "split" if (root / name / "questions_answers_YN").is_dir() else "flat"
        folder = Path(name, "images") if (root / name / "images").is_dir() else Path(name)
        for text in texts:
            with source.noting():
                _read_text(source, root, text, name, folder)
    counts = ", ".join(f"{kind} {list(layouts.values()).count(kind)}" for kind in ("split", "flat") if kind in layouts.values())
    return _finished(source, f" (layout of folders: {counts})")


def _read_text(source: Source, root: Path, text: Path, name: str, folder: Path) -> None:
    """The two questions of one picture, `question <tab> Yes|No`."""
    lines = [(n, line.rstrip("\r")) for n, line in enumerate(decoded(text, read_bytes(text)).split("\n"), 1) if line.strip()]
    rows = []
    for number, line in lines:
        record = Record({}, f"{text}:{number}")
        question, tab, truth = line.rpartition("\t")
        answer = truth.strip().rstrip(".").capitalize()
        if not tab or "\t" in question or not question.strip():
            raise record.fail(f"expected question and answer with one tab between, got {line.count(chr(9))} tabs")
        if answer not in YES_NO:
            raise record.fail(f'expected the answer "Yes" or "No", got {shown(truth)}')
        rows.append((record, question.strip(), answer))
    if len(rows) != PER_IMAGE:
        raise Record({}, str(text)).fail(f"expected {PER_IMAGE} questions about the picture, got {len(rows)}")
    picture = next((folder / f"{text.stem}{e}" for e in ENDINGS if (root / folder / f"{text.stem}{e}").is_file()), None)
    path = (picture or folder / f"{text.stem}.jpg").as_posix()
    for record, question, answer in rows:
        row = {"task": "mme", "prompt": question, "choices": YES_NO, "answer": answer, "meta": {"subtask": name}}
        source.add(record, name, path, row, image_id=f"{name}/{Path(path).name}")


def read_table(files: Mapping[Path, Sequence[Record]]) -> Source:
    """The same from rows {question_id: "existence/0006.png", question, answer, category}."""
    source, known, asked = Source("mme", list(files)), {name.lower(): name for name in ALL}, {}
    for records in files.values():
        for record in records:
            with source.noting():
                category = record.text("category").strip()
                if category.lower() not in known:
                    raise record.fail(f"no subtask of MME is called {shown(category)}")
                name = known[category.lower()]
                answer = record.one_of(YES_NO, *TRUTH)
                row = {
                    "task": "mme",
                    "prompt": question_text(record),
                    "choices": YES_NO,
                    "answer": answer,
                    "meta": {"subtask": name},
                }
                picture = record.key("question_id", "image_path", "image")
                source.add(record, name, picture, row)
                asked.setdefault(picture, []).append(record.where)
    for picture, places in asked.items():
        if len(places) != PER_IMAGE:
            source.problems.append(f"{places[-1]}: expected {PER_IMAGE} questions about {shown(picture)}, got {len(places)}")
    return _finished(source)


def _finished(source: Source, layout: str = "") -> Source:
    source.absent = [name for name in ALL if name not in source.parts]
    groups = {"the four hallucination subtasks": SUBTASKS, "perception": PERCEPTION, "cognition": COGNITION}
    whole = [title for title, names in groups.items() if all(name in source.parts for name in names)]
    source.variant = f"{len(source.parts)} of {len(ALL)} subtasks; complete: {', '.join(whole) or 'none'}{layout}"
    return source
