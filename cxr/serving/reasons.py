"""The kinds of reasons for which a model refers an image, for counting: the texts of an answer carry numbers."""

UNDECIDED, UNLIKE, INVERTED, IMPLAUSIBLE = "undecided", "unlike training", "inverted", "implausible"
KINDS = (UNDECIDED, UNLIKE, INVERTED, IMPLAUSIBLE)
_STARTS = {"undecided": UNDECIDED, "unlike the training images": UNLIKE, "black and white": INVERTED}


def kinds(reasons: str) -> list[str]:
    """The kinds in the column `reasons` of one referred image, each once; what the image itself shows is implausible.

    Kinds are `KINDS`, the keys of `cxr.evaluation.results.Referrals.reasons`.
    """
    texts = [text for text in reasons.split("; ") if text]
    found = [next((kind for start, kind in _STARTS.items() if text.startswith(start)), IMPLAUSIBLE) for text in texts]
    return list(dict.fromkeys(found))
