"""What an answer costs, relative to one greedy answer of the same model without an adapter.

Cost is the number of passes through the model, times its weights over those of the bare model. Seconds are measured by
`benchmarks/adapter.py`.
"""

from collections.abc import Mapping, Sequence

from hkd_core.evaluation.registry import COSTS, first_of
from hkd_core.evaluation.runs import System
from hkd_core.inference.views import FREE_TEXT_VIEWS


def views_of(distortion: tuple[str, float]) -> int:
    """How many views contrastive decoding needs. distortion: the view and its strength, which is a number of pictures for some."""
    view, strength = distortion
    return int(strength) if view in ("alike", "least", "shuffled") else 1


def passes(views: int, names: int) -> dict[str, dict[str, int]]:
    """Benchmark of the costs -> decoding -> passes for one answer; a decoding that is not named takes one.

    views: of contrastive decoding; names: that "asked" asks about. Mapping shift asks a yes/no question in two ways and one with
    four options in four.
    """
    return {
        COSTS["yes_no"]: {"contrastive": 1 + views, "contrastive_shift": 1 + views, "msi": 2},
        COSTS["choices"]: {"msi": 4, "contrastive": 1 + views},
        COSTS["caption"]: {"contrastive": 1 + min(views, FREE_TEXT_VIEWS), "asked": 1 + names},
    }


def cost_rows(
    systems: Sequence[System],
    parameters: Mapping[str, int],
    rows: Sequence[Mapping],
    *,
    distortion: tuple[str, float],
    names: int,
    seed: int,
) -> list[dict]:
    """Rows of the results table, metric "times_greedy". rows: those that are there; they say what each system was asked."""
    needed, found = passes(views_of(distortion), names), []
    for system in systems:
        bare = next(other for other in systems if other.folder == system.folder and other.adapter is None)
        for form, benchmark in COSTS.items():
            asked = first_of(form).name
            decodings = dict.fromkeys(row["decoding"] for row in rows if (row["model"], row["benchmark"]) == (system.name, asked))
            for decoding in decodings:
                times = needed[benchmark].get(decoding, 1) * parameters[system.name] / parameters[bare.name]
                cost = {"value": round(times, 2), "low": round(times, 2), "high": round(times, 2), "n": 0, "seed": seed}
                found.append({"model": system.name, "decoding": decoding, "benchmark": benchmark, "metric": "times_greedy"} | cost)
    return found
