"""CHAIR as we read captions, against a file scored by the published script: `python benchmarks/chair.py results.json`.

The file is what the published script (github.com/LisaAnne/Hallucination) and its descendants write: {"sentences": [{"image_id", "caption",
"mscoco_gt_words", "mscoco_generated_words"}, ...]} about COCO pictures; many papers' repositories hold theirs.
"""

import argparse
import sys
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.common.files import read_json
from hkd_core.evaluation.chair import chair, chair_scores, coco_vocabulary

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--differences", type=int, default=20, help="captions read differently to be shown (default 20)")
    args = parser.parse_args()
    sentences = read_sentences(args.file)
    published = [as_published(sentence) for sentence in sentences]
    there = {str(i): sentence["mscoco_gt_words"] for i, sentence in enumerate(sentences)}
    ours = chair([(str(i), sentence["caption"]) for i, sentence in enumerate(sentences)], there, coco_vocabulary())
    theirs = chair_scores(published)
    print(f"{len(sentences)} captions    published    ours    difference")
    for name in ("chair_s", "chair_i", "recall"):
        print(f"{name:12} {theirs[name]:12.2f} {ours[name]:7.2f} {ours[name] - theirs[name]:+13.2f}")
    pairs = zip(sentences, published, ours["captions"], strict=True)
    differ = [(s["image_id"], p["generated"], o["generated"]) for s, p, o in pairs if p["generated"] != o["generated"]]
    print(f"read differently: {len(differ)} captions")
    for image_id, theirs_named, ours_named in differ[: args.differences]:
        print(f"  {image_id}\n    published: {', '.join(theirs_named) or '-'}\n    ours:      {', '.join(ours_named) or '-'}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"chair: {error}")
