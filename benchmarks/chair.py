"""CHAIR by our three readings, against files scored by a published script: `python benchmarks/chair.py results.json ...`.

A file is what the published script (github.com/LisaAnne/Hallucination) and its descendants write: {"sentences": [{"image_id", "caption",
"mscoco_gt_words", "mscoco_generated_words"}, ...]} about COCO pictures. Many papers' repositories hold theirs.
"""

import argparse
import sys
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.common.files import read_json
from hkd_core.evaluation.chair import chair, chair_scores, coco_vocabulary
from hkd_core.evaluation.chair_readings import READINGS, reading

SCORES = ("chair_s", "chair_i", "recall")
FIELDS = ("image_id", "caption", "mscoco_gt_words", "mscoco_generated_words")


def as_published(sentence: dict) -> dict:
    """A row of `chair`'s with the objects that the published script found in the caption."""
    named, there = sentence["mscoco_generated_words"], set(sentence["mscoco_gt_words"])
    wrong = [name for name in named if name not in there]
    row = {"generated": named, "hallucinated": wrong, "words": len(sentence["caption"].split())}
    return row | {"found": len(there & set(named)), "there": len(there)}


def read_sentences(path: Path) -> list[dict]:
    """Raises UserError naming the file, and the entry that lacks a field."""
    held = read_json(path)
    sentences = held.get("sentences") if isinstance(held, dict) else None
    if not sentences:
        raise UserError(f'{path}: expected an object with "sentences", as the published script writes it')
    for number, sentence in enumerate(sentences, 1):
        missing = [name for name in FIELDS if name not in sentence]
        if missing:
            raise UserError(f"{path}: sentence {number} lacks {', '.join(missing)}")
    return sentences


def compare(path: Path, name: str, differences: int) -> None:
    """Print the reading's distance to the file's published scores, and some of the captions that it reads differently."""
    sentences, vocabulary = read_sentences(path), coco_vocabulary()
    published = [as_published(sentence) for sentence in sentences]
    there = {str(i): sentence["mscoco_gt_words"] for i, sentence in enumerate(sentences)}
    captions = [(str(i), sentence["caption"]) for i, sentence in enumerate(sentences)]
    ours, theirs = chair(captions, there, vocabulary, reading(name, vocabulary)), chair_scores(published)
    pairs = zip(sentences, published, ours["captions"], strict=True)
    differ = [(s["image_id"], p["generated"], o["generated"]) for s, p, o in pairs if p["generated"] != o["generated"]]
    shown = "  ".join(f"{score} {theirs[score]:.2f} {ours[score] - theirs[score]:+.2f}" for score in SCORES)
    print(f"{path.name}  {name:7}  {len(sentences)} captions, {len(differ)} read differently  {shown}")
    for image_id, theirs_named, ours_named in differ[:differences]:
        print(f"  {image_id}\n    published: {', '.join(theirs_named) or '-'}\n    {name}: {', '.join(ours_named) or '-'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--reading", choices=READINGS, nargs="+", default=READINGS, help="which to compare (default: all)")
    parser.add_argument("--differences", type=int, default=0, help="captions read differently to be shown (default 0)")
    args = parser.parse_args()
    for path in args.files:
        for name in args.reading:
            compare(path, name, args.differences)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"chair: {error}")
