"""AMBER (arXiv 2311.07397): `annotations.json` and `query/query_*.json`, joined by id.

The generative part becomes descriptions with what is there, the discriminative part yes-no questions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hkd_core.evaluation.amber import DIMENSIONS, TYPES
from hkd_core.evaluation.amber_generative import is_names
from hkd_core.evaluation.records import Record
from hkd_core.evaluation.rows import shown
from hkd_core.sources.source import YES_NO, Source

PUBLISHED = {"generative": 1004, "existence": 4924, "state": 4764, "number": 2072, "action": 792, "relation": 1664}


def is_annotation(fields: Mapping) -> bool:
    return {"id", "type", "truth"} <= set(fields) and not ({"image", "query"} & set(fields))


def read(files: Mapping[Path, Sequence[Record]]) -> Source:
    """Examples of the tasks "amber" (answers "Yes" and "No") and "amber_generative" (`objects`: the truth); `meta` {id, type[, hallu]}.

    files: the annotations and one or more files of queries; of several, a query that occurs again is passed over.
    """
    source = Source("amber", list(files))
    annotations: dict[str, Record] = {}
    queries: dict[str, Record] = {}
    for path, records in files.items():
        notes = bool(records) and is_annotation(records[0].fields)
        own: dict[str, Record] = {}
        for record in records:
            with source.noting():
                key = record.key("id")
                if key in own:
                    raise record.fail(f"id {shown(key)} occurs twice, first at {own[key].where}")
                own[key] = record
        (annotations if notes else queries).update(own)
        if notes and annotations != own:
            source.problems.append(f"{path}: a second file of annotations; expected one annotations.json")
    if not annotations or not queries:
        lacking = "annotations.json" if queries else "query/query_all.json"
        source.problems.append(f"{source.paths[0]}: {lacking} is not here; AMBER needs its annotations and its queries")
        return source
    for key, query in queries.items():
        with source.noting():
            if key not in annotations:
                raise query.fail(f"id {shown(key)} has no annotation")
            _add(source, key, query, annotations[key])
    source.absent = [
        name for name, kinds in (("generative", ("generative",)), *DIMENSIONS.items()) if not source.parts.keys() & set(kinds)
    ]
    whole = all(source.parts[name] == count for name, count in PUBLISHED.items())
    source.variant = (
        f"all {sum(PUBLISHED.values()):,} queries" if whole else f"{len(source.examples):,} of {sum(PUBLISHED.values()):,} queries"
    )
    return source


def _add(source: Source, key: str, query: Record, annotation: Record) -> None:
    kind = annotation.text("type").strip()
    meta: dict = {"id": key}
    row: dict = {"task": "amber", "prompt": query.text("query")}
    if kind == "generative":
        truth, hallu = annotation.get("truth"), annotation.get("hallu")
        if not is_names(truth) or not is_names(hallu):
            raise annotation.fail('"truth" and "hallu": expected lists of names')
        row |= {"task": "amber_generative", "objects": truth}
        meta |= {"type": kind, "hallu": hallu}
    elif kind in TYPES:
        row |= {"choices": YES_NO, "answer": annotation.one_of(YES_NO, "truth")}
        meta |= {"type": TYPES[kind]}
    else:
        raise annotation.fail(f'"type": expected "generative" or one of AMBER\'s discriminative types, got {shown(kind)}')
    source.add(query, meta["type"], query.text("image"), row | {"meta": meta})
