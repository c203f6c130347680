"""Pseudonyms of patients: keyed digests of the patient IDs in DICOM files.

Patient IDs are short, so that whoever has a plain digest finds the ID by trying them all. The key is made once for each
user and stays in the user's configuration folder: without it, a pseudonym says only which images are of one patient.
"""

import logging
import secrets
from functools import cache
from hashlib import blake2b
from pathlib import Path

import platformdirs

from cxr.common.files import make_folder, write_atomic
from cxr.common.locks import alone
from cxr.errors import CxrError

log = logging.getLogger(__name__)

PSEUDONYMS = "dicom/"  # what they begin with
STUDIES = "study/"  # the same for the pseudonym of a study, which stands for a patient whom nothing else names
KEY_BYTES = 32
_DIGEST_BYTES = 16  # two of a billion patients share a pseudonym with a probability below 1e-20


def key_file() -> Path:
    """The file that holds the key of this user, in hexadecimal digits."""
    return Path(platformdirs.user_config_dir("cxr")) / "patients.key"


def pseudonym(patient: str) -> str:
    """The pseudonym of a patient: the same on every call and in every process of this user.

    Args:
        patient: patient ID and its issuer, as in `DecodedImage.patient`.

    Raises:
        CxrError: the key cannot be read or written, or is damaged.
    """
    digest = blake2b(patient.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES, key=_key(key_file()))
    return PSEUDONYMS + digest.hexdigest()


@cache
def _key(file: Path) -> bytes:
    """The key in `file`, made there if there is none."""
    try:
        if not file.exists():
            make_folder(file.parent, mode=0o700)
            with alone(file.with_suffix(".lock")):
                if not file.exists():  # otherwise another process was faster
                    write_atomic(file, secrets.token_hex(KEY_BYTES).encode(), mode=0o600)
                    log.info("made the key of patient pseudonyms: %s", file)
        text = file.read_text(encoding="ascii").strip()
        key = bytes.fromhex(text)
    except OSError as error:
        raise CxrError(
            f"the key of patient pseudonyms {file} cannot be read ({error.strerror or error}); make it readable, or "
            "set XDG_CONFIG_HOME to a folder that can be written"
        ) from None
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise CxrError(
            f"the key of patient pseudonyms {file} is damaged, expected {2 * KEY_BYTES} hexadecimal digits; restore it "
            "from a backup, or delete it: patients then get other pseudonyms than in earlier splits"
        )
    return key
