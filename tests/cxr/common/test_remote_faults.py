"""Errors of the libraries behind fsspec are told apart, of those too that are not installed here."""

import pytest

from cxr.common import remote_faults


class HttpError(Exception):  # as gcsfs has it
    def __init__(self, code: int):
        super().__init__(f"code {code}")
        self.code = code


class DefaultCredentialsError(Exception):  # as google.auth has it
    pass


def of(package: str, message: str = "x") -> Exception:
    """An error of a class that a package would have."""
    return type("SomeError", (Exception,), {"__module__": f"{package}.errors"})(message)


@pytest.mark.parametrize(
    ("error", "scheme", "words"),
    [
        (HttpError(401), "gs", "access is denied (code 401); see GOOGLE_APPLICATION_CREDENTIALS"),
        (OSError("Forbidden: /b/box\nno access"), "gs", "access is denied (Forbidden: /b/box no access)"),
        (
            DefaultCredentialsError("none found"),
            "gs",
            "no credentials (none found); set GOOGLE_APPLICATION_CREDENTIALS",
        ),
        (
            ValueError("unable to connect to account for Must provide either a connection_string or account_name"),
            "abfs",
            "; set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
        ),
        (
            PermissionError("https://a/b?sig=S3CR3T"),
            "abfs",
            "access is denied (https://a/b); see AZURE_STORAGE_ACCOUNT",
        ),
        (
            OSError("unable to load libhdfs: libhdfs.so"),
            "hdfs",
            "needs pyarrow with Hadoop's libhdfs and Java: install",
        ),
    ],
)
def test_what_no_further_attempt_would_mend_is_told_at_once(error, scheme, words):
    told = str(remote_faults.told(error, f"{scheme}://box/a", scheme))
    assert told.startswith(f"{scheme}://box/a: ") and words in told and "S3CR3T" not in told


@pytest.mark.parametrize("error", [of("aiohttp"), of("botocore"), of("google"), OSError(5, "I/O"), TimeoutError()])
def test_faults_of_networks_may_pass(error):
    assert remote_faults.told(error, "s3://box", "s3") is None and remote_faults.may_pass(error)


@pytest.mark.parametrize("error", [TypeError("x"), of("cxr"), of("numpy"), KeyError("x")])
def test_faults_of_the_program_do_not(error):
    assert remote_faults.told(error, "s3://box", "s3") is None and not remote_faults.may_pass(error)
