"""HallusionBench (arXiv 2310.14566): `HallusionBench.json`, with pictures unpacked beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hkd_core.evaluation.hallusion import KEYS, question_set
from hkd_core.evaluation.records import Record
from hkd_core.evaluation.rows import shown
from hkd_core.sources.source import YES_NO, Source


def read(files: Mapping[Path, Sequence[Record]]) -> Source:
    """Examples of the task "hallusion"; `meta` holds `hallusion.KEYS`. Questions asked without a picture have the image_id ""."""
    source = Source("hallusion", list(files))
    for records in files.values():
        for record in records:
            with source.noting():
                name = record.fields.get("filename") if "filename" in record.fields else record.picture()
                if name is not None and not isinstance(name, str):
                    raise record.fail(f'"filename": expected a path or null, got {shown(name)}')
                meta = {key: record.key(key) for key in KEYS}
                bare = record.optional("visual_input") == "0" or (meta["category"], meta["figure_id"]) == ("VS", "0")
                if not name and not bare:
                    raise record.fail('missing "filename"; only questions whose "visual_input" is "0" have none')
                answer = {"1": "Yes", "0": "No"}.get(record.key("gt_answer"))
                if answer is None:
                    raise record.fail(f'"gt_answer" must be "0" or "1", got {shown(record.get("gt_answer"))}')
                row = {"task": "hallusion", "prompt": record.text("question"), "choices": YES_NO, "answer": answer, "meta": meta}
                part = f"{meta['category']} {meta['subcategory']}"
                source.add(record, part, (name or "").removeprefix("./").removeprefix("hallusion_bench/"), row)
    source.variant = question_set([row["meta"] for row in source.examples]) if source.examples else "nothing usable"
    return source
