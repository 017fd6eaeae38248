"""Leaks: training pictures that also stand in a benchmark, found by their number and by how they look.

COCO, Visual Genome (whose pictures GQA has) and OpenImages number their pictures, so a number tells across file names and folders.
Copies under other names are found by a difference hash of 256 bits. Each says whether a spot of the picture in grey is brighter than
its left neighbour (N. Krawetz, "Kind of Like That", hackerfactor.com, 2013). Sizes and compression hardly change it; crops and
mirror images are not found.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hkd_core.data.pictures import coco_number

HASH_SIZE = (17, 16)  # width, height of the thumbnail that is hashed
NEAR = 20  # bits of 256 in which two copies of one picture may differ
PLAIN = 4.0  # standard deviation of grey values, of 255, below which a picture is too plain to be told from others
LAST_COCO = 581_929  # COCO's largest number
GENOME = re.compile(r"(?:^|[/\\])(?:gqa|vg|VG_100K(?:_2)?|visual_?genome)(?:[/\\]|$)", re.IGNORECASE)
OPEN_IMAGE = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Leak:
    """A training picture that is also a picture of the benchmark. how: "number" or "looks"; bits: in which the hashes differ."""

    train: str
    benchmark: str
    how: str
    bits: int = 0


def number_of(name: str, *, genome: bool = False) -> tuple[str, str] | None:
    """(collection, number) of a picture, or None for a name that says nothing beyond its own data set.

    genome: bare numbers are Visual Genome's, as in GQA. Otherwise a bare number up to LAST_COCO is taken for COCO's, as annotation
    files write it, unless its folder names GQA or Visual Genome.
    """
    number = coco_number(name)
    if number is not None:
        return "coco", str(number)
    stem = re.sub(r"\.[A-Za-z]{3,4}$", "", re.split(r"[/\\]", name.strip())[-1])
    if re.fullmatch(r"[1-9]\d{0,8}", stem, re.ASCII):
        genome = genome or bool(GENOME.search(name)) or int(stem) > LAST_COCO
        return ("genome" if genome else "coco"), stem
    return ("openimages", stem) if OPEN_IMAGE.fullmatch(stem) else None


def by_number(train: Sequence[str], benchmark: Sequence[str], *, genome: bool = False) -> list[Leak]:
    """Leaks that names tell, in the order of `train`. genome: bare numbers of the benchmark are Visual Genome's."""
    known = {number: name for name in benchmark if (number := number_of(name, genome=genome))}
    return [Leak(name, known[number], "number") for name in train if (number := number_of(name)) in known]


def difference_hash(small: np.ndarray) -> np.ndarray | None:
    """[4] uint64 of a thumbnail [16, 17] in grey, or None for a picture too plain to compare."""
    if small.std() < PLAIN:
        return None
    bits = small[:, 1:] > small[:, :-1]
    return np.packbits(bits.ravel()).view(np.uint64)


def by_looks(train: Mapping[str, np.ndarray | None], benchmark: Mapping[str, np.ndarray | None]) -> list[Leak]:
    """Each training picture with the nearest picture of the benchmark, where at most NEAR bits of their hashes differ.

    name -> `difference_hash`; pictures whose hash is None are left out.
    """
    known = {name: one for name, one in benchmark.items() if one is not None}
    if not known:
        return []
    names, table = list(known), np.stack(list(known.values()))  # table: [M, 4]
    found = []
    for name, one in train.items():
        if one is None:
            continue
        differing = np.bitwise_count(table ^ one).sum(1)
        nearest = int(differing.argmin())
        if differing[nearest] <= NEAR:
            found.append(Leak(name, names[nearest], "looks", int(differing[nearest])))
    return found


def united(*several: Sequence[Leak]) -> list[Leak]:
    """Each training picture once, the first way in which it was found."""
    found: dict[str, list[Leak]] = defaultdict(list)
    for leaks in several:
        for leak in leaks:
            found[leak.train].append(leak)
    return [leaks[0] for leaks in found.values()]
