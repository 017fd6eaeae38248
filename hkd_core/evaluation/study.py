"""What the study asks: its comparisons and its goals. All of it is data about named models."""

from collections.abc import Mapping, Sequence

from hkd_core.evaluation.comparison import Comparison

TASKS = (("task1", "macro_f1"), ("task2", "macro_f1"))
POPE = tuple((f"pope_{split}", "f1") for split in ("random", "popular", "adversarial"))
MME = (("mme", "score"),)
CAPTIONS = (("caption", "chair_i"), ("caption", "recall"))
VALIDATION_TASKS = (("task1_val", "macro_f1"), ("task2_val", "macro_f1"))
VALIDATION_POPE = (("pope_adversarial_val", "f1"),)
GREEDY, SEED = "base_medium greedy", "seed_medium greedy"

# SEED's controls: the medium model, evolved in other ways.
EVOLVED = (
    "self_distilled_medium",
    "shift_distilled_medium",
    "seed_medium_round_1",
    "seed_medium_forward_kl",
    "seed_medium_jsd",
    "seed_medium_skewed",
    "seed_medium_lora",
    "seed_medium_full",
)
CONTROLS = tuple(f"{name} greedy" for name in EVOLVED)
DECODED = ("base_medium sampling", "base_medium contrastive")

LARGE = "does the distilled small model beat the large one tuned directly?"
GREEDY_BEATEN = "does self-evolution beat greedy?"
SHIFT_BEATEN = "does it beat greedy + constant shift?"
CLEANER = "does self-evolution clean captions?"
NO_WORSE = "is mapping shift no worse, on validation?"
# Each of these four is asked of many ways of answering, so it forms one family for Holm.
CEILING = "how much could a separate shift for each name gain over one constant (oracle)?"
REACHED = "does self-evolution reach what a separate shift for each name would (oracle)?"
AGAINST = "ahead of greedy + constant shift?"
HARM = "does it harm?"

HKD_QUESTIONS = [
    (LARGE, "hkd_small msi", "sft_large greedy"),
    ("and if the large one is given mapping shift as well?", "hkd_small msi", "sft_large msi"),
    ("and if the large one is tuned as long, on augmented examples, as well?", "hkd_small msi", "sft_large_long greedy"),
    ("and if it has all three?", "hkd_small msi", "sft_large_long msi"),
    ("does it beat the small one tuned directly, as long, on the same labels?", "hkd_small greedy", "sft_small_long greedy"),
    ("and with mapping shift for both?", "hkd_small msi", "sft_small_long msi"),
    ("does it beat plain distillation?", "hkd_small greedy", "kd_small greedy"),
    ("does refinement help the pyramid?", "hkd_small greedy", "ppod_small greedy"),
    ("and with mapping shift for both, the pyramid and it?", "hkd_small msi", "ppod_small msi"),
    ("does mapping shift help?", "hkd_small msi", "hkd_small greedy"),
    ("does self-evolution harm it?", SEED, GREEDY),
    ("does self-evolution harm the distilled model?", "seed_hkd_small msi", "hkd_small msi"),
]
SEED_QUESTIONS = [
    (GREEDY_BEATEN, SEED, GREEDY),
    (SHIFT_BEATEN, SEED, "base_medium shift"),
    ("does its first round beat training on the model's own first choices?", "seed_medium_round_1 greedy", "self_distilled_medium greedy"),
    (
        "does its first round beat training on answers with only the shift subtracted?",
        "seed_medium_round_1 greedy",
        "shift_distilled_medium greedy",
    ),
    ("does reverse KL beat forward KL?", SEED, "seed_medium_forward_kl greedy"),
    ("does the adapter beat a LoRA?", SEED, "seed_medium_lora greedy"),
    ("does the adapter beat tuning every weight?", SEED, "seed_medium_full greedy"),
    ("does it beat the contrastive decoder with the same shift?", SEED, "base_medium contrastive_shift"),
    ("does it help the distilled model?", "seed_hkd_small greedy", "hkd_small greedy"),
]
SHIFT_QUESTIONS = [
    *((AGAINST, way, "base_medium shift") for way in (GREEDY, *DECODED, "base_medium contrastive_shift", *CONTROLS)),
    (AGAINST, "seed_hkd_small greedy", "hkd_small shift"),
    (CEILING, "base_medium oracle_name_shift", "base_medium oracle_shift"),
    (CEILING, "base_medium oracle_name_place_shift", "base_medium oracle_shift"),
    (REACHED, SEED, "base_medium oracle_name_shift"),
]
HARM_QUESTIONS = [(HARM, way, GREEDY) for way in (*DECODED, *CONTROLS)]
MME_QUESTIONS = [(HARM, way, GREEDY) for way in (*DECODED, "base_medium shift", SEED, *CONTROLS)]
CAPTION_QUESTIONS = [
    (CLEANER, SEED, GREEDY),
    ("does it clean captions as self-verification does, which asks about every name?", SEED, "base_medium asked"),
    ("does reverse KL beat forward KL?", SEED, "seed_medium_forward_kl greedy"),
    ("does reverse KL beat Jensen-Shannon?", SEED, "seed_medium_jsd greedy"),
    ("does reverse KL beat the skewed kind?", SEED, "seed_medium_skewed greedy"),
    ("does it help the distilled model?", "seed_hkd_small greedy", "hkd_small greedy"),
]


def comparisons(shifted: Sequence[str]) -> list[Comparison]:
    """Every comparison of the study, in the order of comparisons.csv. shifted: the models that answer under mapping shift."""
    return [
        *asked(TASKS, HKD_QUESTIONS),
        *asked(POPE, SEED_QUESTIONS),
        *asked(POPE, SHIFT_QUESTIONS),
        *asked(TASKS, HARM_QUESTIONS),
        *asked(MME, MME_QUESTIONS),
        *asked(CAPTIONS, HARM_QUESTIONS),
        # Mapping shift fits constants on validation. On POPE the control has a fitted constant, too.
        *asked(VALIDATION_TASKS, [(NO_WORSE, f"{name} msi", f"{name} greedy") for name in shifted]),
        *asked(VALIDATION_POPE, [(NO_WORSE, f"{name} msi", f"{name} shift") for name in shifted]),
        *asked(CAPTIONS, CAPTION_QUESTIONS),
    ]


def asked(where: Sequence[tuple[str, str]], questions: Sequence[tuple[str, str, str]]) -> list[Comparison]:
    """Each (question, a, b) on each (benchmark, metric)."""
    alone = (AGAINST, HARM, CEILING, REACHED)
    return [
        Comparison(question, a, b, benchmark, metric, family=question if question in alone else "others")
        for benchmark, metric in where
        for question, a, b in questions
    ]


def worse_on_validation(compared: Sequence[Mapping]) -> list[Mapping]:
    """Comparisons in which mapping shift is worse on validation, beyond noise."""
    return [row for row in compared if row["benchmark"].endswith("_val") and row["difference"] < 0 and row["p_holm"] < 0.05]


def outcomes(
    value: Mapping[tuple, float], compared: Sequence[Mapping], parameters: Mapping[str, int], base_metrics: Mapping[str, float]
) -> list[dict]:
    """The study's goals: check, value, met ("yes" or "no"). value: of `tables.values_of`; parameters: model -> how many."""

    def found(question: str, benchmark: str) -> Mapping:
        return next(row for row in compared if (row["question"], row["benchmark"]) == (question, benchmark))

    def check(name: str, goal: str, number: float, met: bool) -> dict:
        return {"check": f"{name} (goal: {goal})", "value": round(number, 4), "met": "yes" if met else "no"}

    def f1(benchmark: str) -> float:
        return value["base_medium", "greedy", benchmark, "f1"]

    crisp = base_metrics["medium_crisp_presence_after_clean"]
    harder = f1("pope_random") - f1("pope_adversarial")
    rows = [
        check("crisp presence accuracy, medium, before the bias", "at least 0.95", crisp, crisp >= 0.95),
        check("POPE F1, base medium, random minus adversarial", "at least 0.05", harder, harder >= 0.05),
    ]
    for task, metric in TASKS:
        tuned = {size: value[f"sft_{size}", "greedy", task, metric] for size in ("large", "medium", "small")}
        for larger, smaller in (("large", "medium"), ("medium", "small")):
            ahead = tuned[larger] - tuned[smaller]
            rows.append(check(f"{task} macro-F1 tuned directly, {larger} minus {smaller}", "above 0", ahead, ahead > 0))
    for task, _ in TASKS:
        row = found(LARGE, task)
        name = f"{task} macro-F1, hkd_small with MSI minus sft_large"
        rows.append(check(name, "interval above 0", row["difference"], row["low"] > 0))
    worse = worse_on_validation(compared)
    name = "mapping shift: ways of answering that it makes worse on validation, beyond noise"
    rows.append(check(name, "none", len(worse), not worse))
    ratio = parameters["hkd_small"] / parameters["sft_large"]
    rows.append(check("parameters, small over large", "at most 0.1", ratio, ratio <= 0.1))
    for split, goal in (("adversarial", 0.05), ("random", -0.01)):
        gain = found(GREEDY_BEATEN, f"pope_{split}")["difference"]
        rows.append(check(f"POPE F1 {split}, SEED minus greedy", f"at least {goal}", gain, gain >= goal))
    row = found(SHIFT_BEATEN, "pope_adversarial")
    rows.append(check("POPE F1 adversarial, SEED minus greedy + shift", "interval above 0", row["difference"], row["low"] > 0))
    cleaned = found(CLEANER, "chair_i")["difference"] / value["base_medium", "greedy", "chair", "chair_i"]
    rows.append(check("CHAIR_i, SEED over greedy, relative", "at most -0.2", cleaned, cleaned <= -0.2))
    row = found(CLEANER, "caption_recall")
    name = "caption recall, points, SEED minus greedy"
    return [*rows, check(name, "no loss, interval not below 0", row["difference"], row["high"] >= 0)]
