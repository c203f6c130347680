"""The lock on a registered model, for all processes and machines that share its store.

A store keeps names of registered models unique, whichever database it has and however it is reached. So whoever creates
the model `NAME.lock` holds the lock, and gives it back by deleting that model. A holder shows by a tag that it is still
there. From a holder that shows nothing, or that ran on this machine and is gone, the lock is taken by renaming it after
its owner, which can succeed only once.
"""

import logging
import random
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException

from cxr.errors import CxrError
from steps.runtime import process

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("cxr.registry")

OWNER, SIGN = "cxr.owner", "cxr.sign_of_life"  # tags of a lock
SIGN_S = 15.0  # between two signs of life of a holder
GONE_S = 120.0  # without one, after which a holder counts as gone
_WAIT_S = 1.0  # between two tries to take the lock, in the mean
_SILENT_S = 5.0  # of waiting, before the log says for whom
_EXISTS, _ABSENT = "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"


@contextmanager
def alone(client: "MlflowClient", name: str) -> Iterator[None]:
    """Hold the lock on one registered model.

    Raises:
        CxrError: the store refuses the lock.
    """
    store = sha256(f"{mlflow.get_registry_uri()}\n{name}".encode()).hexdigest()[:16]
    # Processes of one machine wait for each other here, so that only one of them asks the store.
    with FileLock(Path(tempfile.gettempdir()) / f"cxr-registry-{store}.lock", mode=0o666):
        owner = f"{process.identity()}:{secrets.token_hex(4)}"
        _take(client, f"{name}.lock", owner)
        over = threading.Event()
        signs = threading.Thread(target=_show, args=(client, f"{name}.lock", over), name="lock", daemon=True)
        signs.start()
        try:
            yield
        finally:
            over.set()
            signs.join()
            _give_back(client, f"{name}.lock", owner)


def _take(client: "MlflowClient", lock: str, owner: str) -> None:
    """Wait until the lock is ours."""
    began = asked = time.monotonic()
    seen, since, is_told = None, 0.0, False
    while not _create(client, lock, owner):
        tags = _tags(client, lock)
        if tags is None:  # given back meanwhile
            asked = time.monotonic()
            continue
        holder, now = tags.get(OWNER, ""), time.monotonic()
        if holder == owner:  # by a try whose answer was lost
            return
        # While the store is away, no holder can show anything.
        if tags != seen or now - asked > SIGN_S:
            seen, since = tags, now
        if now - since > GONE_S or not _may_run(holder):
            _bury(client, lock, holder)
            continue
        if now - began > _SILENT_S and not is_told:
            log.info("waiting for %s, which decides on the champion", holder)
            is_told = True
        # Not all who wait ask at the same time.
        time.sleep(_WAIT_S * random.uniform(0.5, 1.5))  # noqa: S311  # nosec B311  # no secret
        asked = time.monotonic()


def _create(client: "MlflowClient", lock: str, owner: str) -> bool:
    """Whether the lock is ours now; false if somebody holds it."""
    what = "A lock that goes away by itself: somebody decides on the champion."
    try:
        with process.unbroken():
            client.create_registered_model(lock, tags={OWNER: owner}, description=what)
    except MlflowException as error:
        # On PostgreSQL the holder may give it back between the refusal and MLflow's look at what there is.
        if error.error_code not in (_EXISTS, _ABSENT):
            raise CxrError(f"the registry refused the lock {lock!r}: {str(error).splitlines()[0]}") from None
        return False
    return True


def _tags(client: "MlflowClient", lock: str) -> dict[str, str] | None:
    """The tags of the lock; None if nobody holds it."""
    try:
        return dict(client.get_registered_model(lock).tags)
    except MlflowException as error:
        if error.error_code == _ABSENT:
            return None
        raise


def _may_run(holder: str) -> bool:
    """Whether the holder may still be at work; always true for one on another machine."""
    with suppress(ValueError):  # not a name of ours
        return process.alive(holder.rpartition(":")[0])
    return True


def _bury(client: "MlflowClient", lock: str, holder: str) -> None:
    """Take the lock from a holder that is gone, unless another process has done so.

    Its new name stays taken until whoever holds the lock next gives that back: a slower process, which still means this
    holder, cannot take the lock from the next one.
    """
    log.warning("the lock on the champion was left behind by %s; taking it", holder)
    with suppress(MlflowException):
        client.rename_registered_model(lock, _grave(lock, holder))


def _grave(lock: str, holder: str) -> str:
    return f"{lock}.{sha256(holder.encode()).hexdigest()[:16]}"


def _show(client: "MlflowClient", lock: str, over: threading.Event) -> None:
    """Show signs of life until the lock is given back."""
    count = 0
    while not over.wait(SIGN_S):
        count += 1
        try:
            client.set_registered_model_tag(lock, SIGN, str(count))
        except Exception as error:  # the next one may reach the store again
            log.warning("the lock on the champion could not be renewed: %s", str(error).splitlines()[0])


def _give_back(client: "MlflowClient", lock: str, owner: str) -> None:
    """Delete the lock, unless it was taken from us, and what is left of holders that were gone."""
    with process.unbroken():
        try:
            if (_tags(client, lock) or {}).get(OWNER) != owner:
                log.warning("the lock on the champion was taken away: this process showed no sign of life")
                return
            for left in client.search_registered_models(f"name LIKE '{lock}.%'"):
                if left.name.startswith(f"{lock}."):  # an underscore in the pattern stands for any character
                    client.delete_registered_model(left.name)
            client.delete_registered_model(lock)
        except (CxrError, MlflowException) as error:
            line = str(error).splitlines()[0]
            log.warning("the lock %r could not be given back (%s); it goes away after %d seconds", lock, line, GONE_S)
