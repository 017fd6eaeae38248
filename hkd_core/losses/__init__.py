"""Divergences between a student's and a teacher's next-token distributions.

`divergence` takes logits, `linear_divergence` hidden states and heads, `topk_divergence` a teacher of which only the k most
probable tokens were kept. All return (sum, count), so that the caller normalises over the whole batch. With T and S the teacher's
and the student's softmax at `temperature`, `kind` is one of

    forward_kl           KL(T || S)                                     covers every mode of the teacher (arXiv 1503.02531)
    reverse_kl           KL(S || T)                                     seeks a mode (arXiv 2306.08543)
    jsd                  beta KL(T || M) + (1 - beta) KL(S || M),       M = beta T + (1 - beta) S (arXiv 2306.13649)
    skewed_forward_kl    KL(T || beta T + (1 - beta) S)                 finite everywhere (arXiv 2402.03898)
    skewed_reverse_kl    KL(S || beta S + (1 - beta) T)                 finite everywhere (arXiv 2402.03898)

Where to look:

- `formulas.py`: each formula in plain torch, and the table of kinds;
- `divergences.py`: the functions above, and `smooth_logits`;
- `kernels.py`: the same formulas, fast and in little memory;
- `vocabulary.py`: the check that two vocabularies agree.
"""

from hkd_core.losses.divergences import KINDS, divergence, linear_divergence, smooth_logits, topk_divergence
from hkd_core.losses.kernels import InfiniteDivergence
from hkd_core.losses.vocabulary import shared_vocabulary

__all__ = [
    "KINDS",
    "InfiniteDivergence",
    "divergence",
    "linear_divergence",
    "shared_vocabulary",
    "smooth_logits",
    "topk_divergence",
]
