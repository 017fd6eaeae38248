"""The challenge's two tasks: which phrase of a caption is wrong, and is a claim true."""

from dataclasses import replace

from hkd_core.evaluation.benchmark import choices


def letters(answer: dict) -> list[str]:
    """Task 1 answers with a letter. A letter is no class; answers do not record the kind of phrase, so we count by letter."""
    return sorted(answer["choices"])


TASK1 = replace(choices("task1", order=letters), table="tasks")
TASK2 = replace(choices("task2"), table="tasks")
