"""Connection to a DICOMweb server: credentials, bounds on time and memory, retries, and one line for what goes wrong.

No line names more than the address of the server: a search may hold the ID of a patient, and a header a password.
"""

import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests import exceptions
from requests.auth import AuthBase, HTTPBasicAuth

from cxr.errors import CxrError

log = logging.getLogger(__name__)
T = TypeVar("T")

USERNAME, PASSWORD, TOKEN = "DICOMWEB_USERNAME", "DICOMWEB_PASSWORD", "DICOMWEB_TOKEN"  # nosec B105  # names
TRIES = 5
WAIT_S = 1.0  # after the first fault; twice as long after each further one
TIMEOUT_S = (10, 60)  # for a connection, and for each part of an answer
ANSWER_S = 300  # for a whole answer
ANSWER_BYTES = 64_000_000  # of a page of a search, or of what a server says to a result; both are far smaller
_PART = 1 << 16
_LATER = (408, 425, 429, 502, 503, 504)  # statuses of a server that may answer later
_DENIED = (401, 403)
_CREDENTIALS = f"{USERNAME} and {PASSWORD}, or {TOKEN}"
_PLACE = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+")
_PATH = re.compile(r"[A-Za-z0-9._~%/-]*")
_AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # of which requests takes the first that is set
_UNTRUSTED = re.compile(r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError")
_CAUSE = re.compile(r"\[(?:Errno -?\d+|SSL: \w+)\] ([^'\"()]+[^'\"() ])")
# They log addresses with the search in them.
for _name in ("dicomweb_client", "urllib3.connectionpool"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class AnswerError(Exception):
    """A server's answer to one request that is of no use; others may be answered. Holds nothing of a patient."""

    def __init__(self, reason: str, status: int | None = None):
        super().__init__(reason)
        self.status = status


class RedirectError(Exception):
    """A server sends a request elsewhere.

    The target may hold a password, a session or the ID of a patient. Told of it are its host, and its path up to what
    was requested of the service.
    """

    def __init__(self, request: str, location: str):
        super().__init__("the server redirects")
        self.request, self.location = request, location

    def told(self, url: str) -> str:
        """One line for the user of the service at `url`."""
        refused = "and redirects are not followed"
        try:
            target = urlsplit(urljoin(self.request, self.location))
            place = f"{target.scheme}://{target.netloc.rpartition('@')[2]}"
        except ValueError:
            place = ""
        if not _PLACE.fullmatch(place):
            return f"{url}: redirects to no address, {refused}; give the address of the service itself"
        resource = urlsplit(self.request).path.removeprefix(urlsplit(url).path)
        path = target.path.removesuffix(resource)
        if path != target.path and _PATH.fullmatch(path):
            return f"{url}: redirects to {place}{path}, {refused}; if that is right, give it as the address"
        return (
            f"{url}: redirects to {place}, {refused}; give the address of the service itself, and set {_CREDENTIALS} "
            "if that is its login"
        )


def check_address(url: str) -> str:
    """An address of a DICOMweb server, without a slash at its end; raises `CxrError` if it is none, or has a secret."""
    example = "expected one like http://127.0.0.1:8042/dicom-web"
    # Anywhere: without a scheme, or after a slash in the password, it does not count as part of the host.
    if "@" in url:
        raise CxrError(
            "dicomweb: the address holds an @, and so a user or a password, which MLflow has noted with this run; "
            f"change the password, and give it by {_CREDENTIALS} in the environment (an @ in a path is written %40)"
        )
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        raise CxrError(f"dicomweb: not an address; {example}") from None
    if parts.query or parts.fragment:
        raise CxrError(f"dicomweb: the address has more than a path; {example}, and a search as -P query=...")
    if parts.scheme not in ("http", "https") or not host:
        raise CxrError(f"dicomweb={url}: not an address; {example}")
    return url.rstrip("/")


def session(url: str, environment: Mapping[str, str] = os.environ) -> "Session":
    """A session with the credentials of the environment alone; warns if they would cross a network in clear."""
    made = Session()
    made.auth = _no_credentials
    user, password, token = (environment.get(name, "") for name in (USERNAME, PASSWORD, TOKEN))
    if token and (user or password):
        raise CxrError(f"{TOKEN} and {USERNAME} or {PASSWORD} are both set; set one kind of credentials")
    if bool(user) != bool(password):
        missing, given = (PASSWORD, USERNAME) if user else (USERNAME, PASSWORD)
        raise CxrError(f"{given} is set, but {missing} is not; set both")
    if not (token.isascii() and token.isprintable()):
        raise CxrError(f"{TOKEN} holds a letter or a line end that no header can carry; set it to the token alone")
    if token:
        made.auth = _Bearer(token)
    elif user:
        made.auth = HTTPBasicAuth(user.encode(), password.encode())  # as texts, they would have to be Latin-1
    parts = urlsplit(url)
    if (token or user) and parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        log.warning("the credentials go to %s unencrypted; use https where the server has it", parts.hostname)
    if parts.scheme == "https":
        _check_authorities(environment)
    return made


def _check_authorities(environment: Mapping[str, str]) -> None:
    """Raise `CxrError` if the certificates that the environment names cannot be used."""
    name = next((name for name in _AUTHORITIES if environment.get(name)), None)
    if name is None:
        return
    path = environment[name]
    kind = "capath" if Path(path).is_dir() else "cafile"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(**{kind: path})
    except OSError as error:
        why = "no certificates in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise CxrError(f"{name}={path}: {why}; name the file of your authority, or unset it") from None


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """No credentials; without this, requests takes those that ~/.netrc has for the server."""
    return request


class _Bearer(AuthBase):
    def __init__(self, token: str):
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Session(requests.Session):
    """A session whose answers are bounded in time and memory, also for dicomweb-client, which knows no bounds."""

    def send(self, request: requests.PreparedRequest, **options) -> requests.Response:
        """Send a request and read its answer, unless it is to be streamed.

        Raises:
            RedirectError: it is a redirect.
            AnswerError: it has another status that no service gives, or passes a bound (see `read`).
        """
        stream = options.pop("stream", False)
        response = super().send(request, stream=True, **options)
        if 300 <= response.status_code < 400:
            response.close()
            if response.is_redirect:
                raise RedirectError(str(request.url), response.headers["Location"])
            raise AnswerError(f"the server answered with status {response.status_code}", response.status_code)
        if not stream:
            body = read(response, ANSWER_BYTES)
            response._content, response._content_consumed = body, True
        return response

    def get_redirect_target(self, resp: requests.Response) -> None:
        """No redirect is followed, nor looked at by requests, which would read a body of any size for it."""


def read(response: requests.Response, limit: int) -> bytes:
    """The body of an answer; raises `AnswerError` if it has more than `limit` bytes or takes more than `ANSWER_S`."""
    end, body = time.monotonic() + ANSWER_S, bytearray()
    try:
        # What has arrived, not a full part: a server that sends a byte now and then must not hold this process.
        while part := response.raw.read1(_PART, decode_content=True):
            body += part
            if len(body) > limit:
                raise AnswerError(f"more than {limit:,} bytes")
            if time.monotonic() > end:
                raise AnswerError(f"the server's answer is not complete after {ANSWER_S} s")
    except urllib3.exceptions.DecodeError:
        raise AnswerError("the server's answer cannot be decompressed") from None
    except urllib3.exceptions.HTTPError as error:
        raise exceptions.ConnectionError(str(error)) from None
    finally:
        if response.raw.closed:
            response.raw.release_conn()
        else:
            response.close()  # what has not been read must not be taken for the next answer
    return bytes(body)


def asked(url: str, call: Callable[[], T]) -> T:
    """The result of a call that asks the server at `url`, repeated with growing waits if the connection fails.

    Raises:
        AnswerError: the server refuses this request, or its answer is of no use.
        CxrError: the server cannot be reached, cannot be trusted, is elsewhere, lets nobody in or is overloaded.
    """
    last = CxrError(f"{url} was not asked")
    for wait in _waits():
        time.sleep(wait)
        try:
            return call()
        except exceptions.SSLError as error:
            if _UNTRUSTED.search(str(error)):
                raise CxrError(
                    f"{url}: its certificate cannot be verified; name the file of your authority in {_AUTHORITIES[0]}"
                ) from None
            cause = _cause(error)
            last = CxrError(f"{url}: no TLS connection ({cause}, {TRIES} tries); give http:// if the server has no TLS")
        except (exceptions.ProxyError, exceptions.InvalidProxyURL) as error:
            last = CxrError(
                f"{url} cannot be reached through a proxy ({_cause(error)}, {TRIES} tries); check HTTP_PROXY, "
                "HTTPS_PROXY and NO_PROXY in the environment"
            )
        except RedirectError as error:
            raise CxrError(error.told(url)) from None
        except (exceptions.InvalidURL, exceptions.InvalidSchema) as error:
            raise CxrError(f"{url}: no usable address ({type(error).__name__}); give that of the service") from None
        except exceptions.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status in _DENIED:
                raise CxrError(f"{url}: access denied (status {status}); set {_CREDENTIALS}") from None
            if status not in _LATER:
                raise AnswerError(f"the server answered with status {status}", status) from None
            last = CxrError(f"{url} is not available (status {status}, {TRIES} tries); run again later")
        except exceptions.JSONDecodeError:
            raise AnswerError("the server's answer is not DICOM JSON") from None
        except exceptions.RequestException as error:
            cause = _cause(error)
            last = CxrError(f"{url} cannot be reached ({cause}, {TRIES} tries); start the server, or check the address")
        except AnswerError:
            raise
        except Exception as error:  # dicomweb-client and pydicom raise many types on odd answers
            raise AnswerError(f"the server's answer cannot be read ({type(error).__name__})") from None
        log.debug("%s", last)
    raise last from None


def _waits() -> Iterator[float]:
    yield 0.0
    for number in range(TRIES - 1):
        yield WAIT_S * 2**number


def _cause(error: Exception) -> str:
    match = _CAUSE.search(str(error))
    return match[1] if match else "timed out" if isinstance(error, exceptions.Timeout) else "the connection broke"
