"""What several seeds say together. Each seed is a whole study, with other images and other base models (our choice)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest, t

from hkd_core.common.errors import UserError
from hkd_core.common.files import read_text
from hkd_core.evaluation.markdown import markdown
from hkd_core.evaluation.statistics import holm

# Columns of the table of means: title -> (benchmark, metric, digits).
COLUMNS = {
    "task 1": ("task1", "macro_f1", 3),
    "task 2": ("task2", "macro_f1", 3),
    "POPE random": ("pope_random", "f1", 3),
    "popular": ("pope_popular", "f1", 3),
    "adversarial": ("pope_adversarial", "f1", 3),
    "CHAIR_i, %": ("chair", "chair_i", 1),
    "recall, %": ("chair", "recall", 1),
    "MME": ("mme", "score", 0),
}
# The figure over seeds: title -> (benchmarks as comparisons.csv names them, [(a, b, text)]).
GREEDY, SEED = "base_medium greedy", "seed_medium greedy"
SPLITS = ("pope_random", "pope_popular", "pope_adversarial")
CLAIMS = {
    "HKD4VLM (macro-F1)": (
        ("task1", "task2"),
        [
            ("hkd_small msi", "sft_large greedy", "small distilled + MSI, over large"),
            ("hkd_small msi", "sft_large_long greedy", "… over large, tuned as long"),
            ("hkd_small greedy", "sft_small_long greedy", "distilled, over labels alone, as long"),
            ("hkd_small msi", "sft_small_long msi", "… both with MSI"),
            ("hkd_small greedy", "kd_small greedy", "distilled, over plain distillation"),
            ("hkd_small greedy", "ppod_small greedy", "refined, over the pyramid"),
            ("hkd_small msi", "ppod_small msi", "… both with MSI"),
        ],
    ),
    "SEED (F1 on POPE)": (
        SPLITS,
        [
            (SEED, GREEDY, "SEED, over greedy"),
            ("seed_medium_round_1 greedy", "self_distilled_medium greedy", "its first round, over own first choices distilled"),
        ],
    ),
    "SEED beyond a constant shift (F1 on POPE)": (
        SPLITS,
        [
            (SEED, "base_medium shift", "SEED, over greedy + shift"),
            ("base_medium contrastive_shift", "base_medium shift", "contrastive decoding + shift, over greedy + shift"),
            ("base_medium oracle_name_shift", "base_medium oracle_shift", "oracle: a shift for every name, over one for all"),
            (
                "base_medium oracle_name_place_shift",
                "base_medium oracle_shift",
                "oracle: for every name in every place, over one",
            ),
            ("seed_medium_round_1 greedy", "shift_distilled_medium greedy", "SEED's first round, over the shift distilled"),
            (SEED, "seed_medium_lora greedy", "adapter, over a LoRA"),
            (SEED, "seed_medium_forward_kl greedy", "reverse KL, over forward KL"),
        ],
    ),
    "SEED (captions, points)": (
        ("chair_i", "caption_recall"),
        [
            (SEED, GREEDY, "SEED, over greedy"),
            (SEED, "base_medium asked", "SEED, over asking about every name"),
            ("seed_medium_lora greedy", GREEDY, "a LoRA, over greedy"),
            (SEED, "seed_medium_forward_kl greedy", "reverse KL, over forward KL"),
            (SEED, "seed_medium_jsd greedy", "reverse KL, over Jensen-Shannon"),
            (SEED, "seed_medium_skewed greedy", "reverse KL, over the skewed kind"),
        ],
    ),
}


def spread(values: Sequence[float]) -> dict[str, float]:
    """mean, sd, and Student's 95 % interval (low, high) of the mean. values: one for each seed.

    Raises ValueError for fewer than two.
    """
    if len(values) < 2:
        raise ValueError(f"expected two seeds or more, got {len(values)}")
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(t.ppf(0.975, len(values) - 1)) * sd / len(values) ** 0.5
    return {"mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def gathered(folder: Path, table: str) -> pd.DataFrame:
    """The rows of `folder`/SEED-`table`.csv of all seeds, with a column seed.

    Raises UserError for fewer than two seeds, or if code or settings differed between them.
    """
    found = sorted(folder.glob(f"*-{table}.csv"), key=lambda path: int(path.name.split("-")[0]))
    if len(found) < 2:
        raise UserError(
            f"{folder}/SEED-{table}.csv: expected two seeds or more, found {len(found)}; python -m hkd_core.seeds makes them"
        )
    code = {path: read_text(path.with_name(path.name.replace(f"-{table}.csv", "-code.txt"))) for path in found}
    if len(set(code.values())) > 1:
        raise UserError(
            f"{folder}: not all seeds were made by the same code and settings; run `make seeds` (or ablations) for all of them"
        )
    return pd.concat([pd.read_csv(path).assign(seed=int(path.name.split("-")[0])) for path in found], ignore_index=True)


def summary(rows: pd.DataFrame, keys: Sequence[str], value: str) -> pd.DataFrame:
    """One row for each value of `keys` that every seed has, in the first seed's order: `spread`, and seed_0, seed_1 and so on."""
    seeds = list(dict.fromkeys(rows.seed))
    wide = rows.pivot_table(index=list(keys), columns="seed", values=value, sort=False).dropna()[seeds]
    found = pd.DataFrame([spread(row.tolist()) for row in wide.to_numpy()], index=wide.index)
    return found.join(wide.rename(columns=lambda seed: f"seed_{seed}")).round(4).reset_index()


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """`summary` of comparisons (see comparison.FIELDS), with all seeds' answers fixed and broken, and a sign test over all their images.

    The interval says what another seed would give. The test, adjusted within each benchmark's family (Holm), is about these seeds' models.
    """
    keys = ["family", "question", "a", "b", "benchmark"]
    found = summary(rows, keys, "difference")
    counts = rows.groupby(keys, sort=False)[["fixed", "broken", "better", "worse"]].sum().reset_index()
    found = found.merge(counts, on=keys)
    changed = found.better + found.worse
    found["p"] = [float(binomtest(a, n).pvalue) if n else 1.0 for a, n in zip(found.better, changed, strict=True)]
    found["p_holm"] = found.groupby(["benchmark", "family"], sort=False).p.transform(lambda p: pd.Series(holm(list(p)), p.index))
    return found.assign(p=[float(f"{p:.4g}") for p in found.p], p_holm=found.p_holm.round(4))


def claim_rows(changes: pd.DataFrame, claims: Sequence[tuple[str, str, str]], benchmarks: Sequence[str]) -> list[dict[str, pd.Series]]:
    """For each claim (a, b, text): benchmark -> its row of `differences`."""
    rows = changes.set_index(["a", "b", "benchmark"])
    return [{benchmark: rows.loc[[(a, b, benchmark)]].iloc[0] for benchmark in benchmarks} for a, b, _ in claims]


def seeds_markdown(values: pd.DataFrame, outcomes: pd.DataFrame, changes: pd.DataFrame) -> str:
    """Three Markdown tables: means and deviations of every way of answering, goals, comparisons.

    values, changes: `summary` of results and `differences`; outcomes: `gathered` goals.
    """
    seeds = [name for name in map(str, values) if name.startswith("seed_")]
    titles = [name.replace("_", " ") for name in seeds]
    index = values.set_index(["model", "decoding", "benchmark", "metric"])

    def cell(*key: str, digits: int) -> str:
        return f"{index.loc[key, 'mean']:.{digits}f} ± {index.loc[key, 'sd']:.{digits}f}" if key in index.index else ""

    means = [
        [
            f"`{model}`" + ("" if decoding == "greedy" else f" + {decoding}"),
            *(cell(model, decoding, benchmark, metric, digits=digits) for benchmark, metric, digits in COLUMNS.values()),
        ]
        for model, decoding in dict.fromkeys(zip(values.model, values.decoding, strict=True))
    ]
    met = outcomes[outcomes.met == "yes"].groupby("check").seed.count()
    goals = [
        [row.check, f"{row['mean']:.3f}", *(f"{row[seed]:.3f}" for seed in seeds), f"{met.get(row.check, 0)} of {len(seeds)} seeds"]
        for _, row in summary(outcomes, ["check"], "value").iterrows()
    ]
    compared = [
        [row.question, row.a, row.b, row.benchmark, f"{row['mean']:+.3f}", f"{row.low:+.3f} to {row.high:+.3f}"]
        + [f"{row[seed]:+.3f}" for seed in seeds]
        + [f"{row.fixed} / {row.broken}", "< 0.0001" if row.p_holm < 1e-4 else f"{row.p_holm:.4f}"]
        for _, row in changes.iterrows()
    ]
    head = ["question", "first", "second", "benchmark", "mean", "95 %, over seeds", *titles, "fixed / broken", "p, Holm"]
    tables = (["model", *COLUMNS], means), (["check", "mean", *titles, "met by"], goals), (head, compared)
    return "\n".join(markdown(*table) for table in tables)
