"""How far two vocabularies agree: heads of one family are padded to different lengths."""

from collections.abc import Mapping

from hkd_core.common.errors import UserError


def shared_vocabulary(student_tokens: Mapping[str, int], teacher_tokens: Mapping[str, int]) -> int:
    """How many ids, from 0 on, mean the same token to both: cut logits to `[..., :n]` and heads to `[:n]`.

    student_tokens, teacher_tokens: token string -> id, as `tokenizer.get_vocab()` gives. Heads are often padded past
    the tokenizer, each size of a family to another length; padding is no token, and its logits mean nothing. Tokens
    that only the longer vocabulary has at its end are cut too, and the softmax is then over the shared part.
    Raises UserError, naming the first differing id and both strings, where the vocabularies disagree before that.
    """
    student = {index: token for token, index in student_tokens.items()}
    teacher = {index: token for token, index in teacher_tokens.items()}
    shared = min(max(student, default=-1), max(teacher, default=-1)) + 1
    for index in range(shared):
        if student.get(index) != teacher.get(index):
            raise UserError(
                f"vocabularies differ at id {index}: {student.get(index)!r} in the student, {teacher.get(index)!r} "
                "in the teacher; expected the same tokenizer, up to tokens added at the end"
            )
    if not shared:
        raise UserError("vocabularies share no token: one of them is empty")
    return shared
