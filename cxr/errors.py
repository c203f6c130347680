"""The one exception for what a user can cause and can mend."""


class CxrError(Exception):
    """A mistake in settings, data or files that the user can put right.

    The message is one line that says what was seen, what is allowed and what to do. Steps print it as it
    stands, mark their run FAILED and exit with status 1; anything else that is raised is a bug of ours.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


class ImageError(CxrError):
    """One picture that cannot be read, or must not be read as a grey X-ray."""


def in_short(error: Exception) -> str:
    """What another library says of a damaged file, as a few words to put in brackets."""
    return " ".join(str(error).split())[:120] or type(error).__name__
