"""A store that is away for a while: its calls are tried again, a line says so, and there is a limit.

MLflow's client tries a request to a tracking server again by itself, also where the server answers that its database is
away, and does so in silence: for four minutes, or as MLFLOW_HTTP_REQUEST_MAX_RETRIES and
MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR say. Calls of a database without a server fail at once, and are tried again here with
the same waits. Who has waited in vain gets an `AwayError`; from then on each call is tried once, so that the step ends.
"""

import errno
import logging
import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import mlflow
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR, MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException
from requests.exceptions import ConnectionError as NotConnectedError
from requests.exceptions import RetryError, Timeout
from urllib3.util import Retry

from cxr.errors import in_short
from steps.runtime import disks, process
from steps.runtime.disks import Place, UnreachableError

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

_RETRIES = MLFLOW_HTTP_REQUEST_MAX_RETRIES.name
# urllib3 tells of every new try for debugging, and of a lost connection as a warning; both name the path.
_TRIES, _CONNECTIONS = logging.getLogger("urllib3.util.retry"), logging.getLogger("urllib3.connectionpool")
_MAY_NOT = os.strerror(errno.EACCES)
_OF_MLFLOW = re.compile(r"/api/\d\.\d/mlflow")


class AwayError(UnreachableError):
    """The store has not answered for as long as calls are tried again."""


class _Outage:
    """State of this process: since when the store is away, and the setting of MLflow before the step gave up on it."""

    since: float | None = None
    before: str | None = None
    given_up = False


def watch() -> None:
    """Say in one line that MLflow's client tries again, instead of one for each lost connection."""
    _TRIES.setLevel(logging.DEBUG)
    _TRIES.addHandler(_TELLER)
    _CONNECTIONS.addFilter(_is_untold)


def patient_client() -> "MlflowClient":
    """A client that waits for a store that is away, and whose calls signals do not interrupt.

    Its calls raise `AwayError` when they have waited in vain.
    """
    return patient(process.with_unbroken_calls(mlflow.MlflowClient()))


def patient(client: "MlflowClient") -> "MlflowClient":
    """Wrap a client so that its calls wait for a store that is away."""
    return process.with_calls(client, _patient_call)


def given_up(error: Exception) -> AwayError | None:
    """What to tell if `error` is that of a call that has waited for the store in vain; None for any other error."""
    if isinstance(error, AwayError):
        return error
    reason = _reason(error)
    if reason is None:
        return None
    waited = sum(waits()) if _Outage.since is None else time.monotonic() - _Outage.since
    if not _Outage.given_up:
        _Outage.given_up, _Outage.before = True, os.environ.get(_RETRIES)
        os.environ[_RETRIES] = "0"
    uri = shown(mlflow.get_tracking_uri())
    return AwayError(
        f"the MLflow store {uri} has not answered for {in_words(waited)} ({reason}); start again once it does, "
        "to go on from what is finished"
    )


def unreachable(error: Exception, places: list[Place]) -> UnreachableError | None:
    """What to tell of an `error` in reading artifacts whose cause is the store or a disk; None if they are gone.

    `places` are the folders that are written to.
    """
    found = given_up(error) or disks.problem(error, mlflow.get_tracking_uri(), places)
    if found is None and (getattr(error, "error_code", None) == "PERMISSION_DENIED" or _MAY_NOT in str(error)):
        uri, reason = shown(mlflow.get_tracking_uri()), str(error).splitlines()[-1]
        return UnreachableError(f"what is in the MLflow store {uri} may not be read ({reason}); ask for the permission")
    return found


def waits() -> list[float]:
    """Seconds before each new try of a call, as MLflow's client has them, without what it adds at random."""
    retries, factor = MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(), MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.get()
    return [min(float(factor * 2**number), Retry.DEFAULT_BACKOFF_MAX) if number else 0.0 for number in range(retries)]


def shown(uri: str) -> str:
    """A tracking URI without the password in it."""
    return re.sub(r"(://[^/:@]*):[^/@]*@", r"\1:***@", uri)


def in_words(seconds: float) -> str:
    """A time that is waited: `40 seconds`, `4 minutes`."""
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _patient_call(method: Callable) -> Callable:
    def call(*args, **kwargs):
        left = [] if _by_http() else waits()
        while True:
            try:
                answer = method(*args, **kwargs)
            except MlflowException as error:
                reason = _reason(error)
                if reason is None:
                    raise
                if not left:
                    raise cast("AwayError", given_up(error)) from None
                _away(reason)
            else:
                _answered()
                return answer
            time.sleep(left.pop(0))

    return call


class _Teller(logging.Handler):
    """Hears of every new try of a request, and tells of the second: the first may only replace an old connection."""

    def emit(self, record: logging.LogRecord) -> None:
        url, retry = cast("tuple[str, Retry]", record.args)
        if len(retry.history) > 1 and _OF_MLFLOW.search(url):
            last = retry.history[-1]
            _away(f"status {last.status}" if last.status else _last_words(last.error))


_TELLER = _Teller()


def _is_untold(record: logging.LogRecord) -> bool:
    """Whether a record of urllib3 is about anything but a request of MLflow that is tried again."""
    return not (str(record.msg).startswith("Retrying") and _OF_MLFLOW.search(record.getMessage()))


def _away(reason: str) -> None:
    """Note that the store is away, and say so if that is new."""
    if _Outage.since is None:
        _Outage.since = time.monotonic()
        uri, limit = shown(mlflow.get_tracking_uri()), in_words(sum(waits()))
        log.warning("the MLflow store %s does not answer (%s); trying again for up to %s", uri, reason, limit)


def _answered() -> None:
    """Note that the store is there, and say so if that is new."""
    if _Outage.since is None:
        return
    log.info("the MLflow store answers again, after %.0f seconds", time.monotonic() - _Outage.since)
    _Outage.since = None
    if _Outage.given_up:
        _Outage.given_up = False
        os.environ.pop(_RETRIES)
        if _Outage.before is not None:
            os.environ[_RETRIES] = _Outage.before


def _reason(error: Exception) -> str | None:
    """Why the store did not answer, if that is what `error` says.

    A full or locked SQLite file looks like a database that is away, but nobody is going to start it again.
    """
    cause = error.__context__  # MLflow keeps only the text of what its HTTP client has raised
    if isinstance(error, MlflowException) and isinstance(cause, NotConnectedError | RetryError | Timeout):
        return _last_words(getattr(cause.args[0], "reason", cause) if cause.args else cause)
    is_away = isinstance(error, MlflowException) and error.error_code == "TEMPORARILY_UNAVAILABLE"
    return in_short(error) if is_away and not mlflow.get_tracking_uri().startswith("sqlite") else None


def _last_words(error: object) -> str:
    """The end of a chain of messages, where the reason is: `Connection refused`."""
    return " ".join(str(error).rpartition(": ")[2].split()) or type(error).__name__


def _by_http() -> bool:
    return mlflow.get_tracking_uri().startswith("http")
