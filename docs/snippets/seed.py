"""SEED on your own yes/no questions: rows of {"image", "prompt", "choices": ["Yes", "No"], "answer"}.

Validation rows need the answer, rows to learn from do not.
"""

from functools import partial

from hkd_core.inference import Features
from hkd_core.models import load_vlm
from hkd_core.seed import EvolveSettings, LessonMaker, Questions, evolve, search_purge


def evolve_on(model, validation, training, folder, steps=400):
    vlm = load_vlm(model)
    questions, seen = Questions(vlm, validation), Features.of_examples(vlm, validation)
    settings = EvolveSettings(steps=steps, distortions=[("none", 0), ("noise", 500)], alphas=[0.5, 1, 2])
    search = search_purge(vlm, questions, seen, settings)
    taught = Features.of_examples(vlm, training)
    lessons = LessonMaker(vlm, taught, search.purge, settings, questions=training)
    validate = partial(questions.validate, features=seen.clean)
    found = evolve(vlm, lessons.course(1), settings, features=taught.clean, seed=0, validate=validate)
    found.save(folder)  # the adapter: load_vlm(model, adapter=folder)
    return search.table, found.table
