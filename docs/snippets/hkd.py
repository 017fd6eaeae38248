"""HKD4VLM on your own examples: dicts with "image", "prompt", "choices" and "answer" ("" where nobody knows it)."""

from hkd_core.hkd import MappingShift, PyramidSettings, TernarySettings, refine, train_pyramid
from hkd_core.models import load_vlm


def distil(large, medium, small, training, validation, folder, steps=350):
    models = {name: load_vlm(where) for name, where in (("large", large), ("medium", medium), ("small", small))}
    train_pyramid(models, training, PyramidSettings(steps=steps), seed=0)  # PPOD: large and medium, then medium and small
    refine(models["small"], models["large"], models["medium"], training, TernarySettings(steps=steps), seed=0)  # TCRD
    models["small"].save(folder)
    shift = MappingShift.fit(models["small"], validation)  # MSI; give it your Wording to shift options and questions, too
    return shift.answer
