"""What a failed request to remote storage means: nothing there, a request to try again, or a line for the user.

The libraries behind fsspec raise errors of their own, and none of them need be installed, so errors are told apart by
the names of their classes and by the packages that these come from.
"""

import re
from errno import ENOENT
from os import strerror

from cxr.errors import CxrError, in_short

# What each library looks for in the environment.
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
    "hdfs": "HADOOP_USER_NAME, or a Kerberos ticket",
}
EXTRA = "pip install -r requirements-cloud.txt"
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "abfs": "adlfs", "hdfs": "pyarrow with Hadoop's libhdfs and Java"}
# Their debug records hold the headers of requests, in which tokens are.
LOGGERS = ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "msal", "s3fs")
_MISSING = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}
_MISSING |= {"TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "DefaultCredentialsError"}
_MISSING |= {"RefreshError", "ClientAuthenticationError"}
_NOT_THERE = {"ResourceNotFoundError"}  # azure
_OF_NETWORKS = {"aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "http", "pyarrow"}
_OF_NETWORKS |= {"requests", "urllib3"}
_NO_HADOOP = re.compile("libhdfs|libjvm|CLASSPATH|HADOOP_HOME")
_EMPTY_RANGE = re.compile("InvalidRange|range is not satisfiable")
_NO_ACCOUNT = re.compile("unable to connect to account")  # adlfs


class EmptyRangeError(Exception):
    """A part of a file was requested that begins at its end."""


def told(error: BaseException, url: str, scheme: str) -> Exception | None:
    """What to raise instead of `error` at once; None if a request may be tried again, or if `error` is a bug."""
    names = {kind.__name__ for kind in type(error).__mro__}
    status = str(getattr(error, "code", None) or getattr(error, "status_code", None) or "")
    if status == "416" or _EMPTY_RANGE.search(str(error)):
        return EmptyRangeError()
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError) or names & _NOT_THERE:
        return FileNotFoundError(ENOENT, strerror(ENOENT), url)
    if names & _MISSING or _NO_ACCOUNT.search(str(error)):
        return CxrError(f"{url}: no credentials ({reason(error)}); set {CREDENTIALS[scheme]}")
    if isinstance(error, PermissionError) or status in ("401", "403") or str(error).startswith("Forbidden"):
        return CxrError(f"{url}: access is denied ({reason(error)}); see {CREDENTIALS[scheme]}, and who may read it")
    if isinstance(error, ImportError) or (scheme == "hdfs" and _NO_HADOOP.search(str(error))):
        remedy = EXTRA if scheme != "hdfs" else f"install them, and set CLASSPATH and JAVA_HOME ({reason(error)})"
        return CxrError(f"{url}: {scheme}:// needs {PACKAGES[scheme]}: {remedy}")
    return None


def may_pass(error: BaseException) -> bool:
    """Whether an error is one of networks and stores, not one of the program."""
    origins = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError | EOFError | TimeoutError) or bool(origins & _OF_NETWORKS)


def reason(error: BaseException) -> str:
    """The message of an error in short, without what may be a signature in an address."""
    text = re.sub(r"\?\S+", "", str(error)) or type(error).__name__
    return in_short(Exception(text))
