"""Requests that outlast a bad network: sessions, what is worth another try, how long to wait, errors in one line.

Certificates are always checked; REQUESTS_CA_BUNDLE names a hospital's own authority, HTTPS_PROXY and NO_PROXY the way
out (all three are read by `requests`).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import requests
from requests.auth import HTTPBasicAuth
from urllib3.exceptions import HTTPError, InvalidHeader, LocationParseError
from urllib3.util import Retry

from convirt.errors import InputError

Result = TypeVar("Result")

USER, PASSWORD, TOKEN = "CONVIRT_DICOMWEB_USER", "CONVIRT_DICOMWEB_PASSWORD", "CONVIRT_DICOMWEB_TOKEN"
"""Environment variables with the credentials of a DICOMweb server; a command line shows to all users of a machine."""
TIMEOUT = (20.0, 60.0)
"""Seconds to connect, and seconds without a byte."""
_BUSY = frozenset({408, 425, 429, 502, 503, 504})  # the server says that it may answer later
_LONGEST_WAIT = 30.0


class Transient(Exception):
    """A failure that another try may mend.

    Attributes:
        wait: Seconds that the server asks for; None if it does not say.
        progress: Whether something was gained before it failed, so that patience starts anew.
    """

    def __init__(self, message: str, *, wait: float | None = None, progress: bool = False) -> None:
        super().__init__(message)
        self.wait = wait
        self.progress = progress


class Refused(Exception):
    """An answer that another try will not change, such as 404.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long failures are borne."""

    seconds: float = 120.0
    """How long one request may fail without any progress before the command gives up."""
    first_wait: float = 0.5
    """Seconds before the second try; it doubles from try to try, up to half a minute."""

    def __post_init__(self) -> None:
        if not self.seconds >= 0:
            raise InputError(f"patience must be 0 seconds or more, got {self.seconds}")


def check_url(url: str, option: str = "--url") -> str:
    """Return a web address without its trailing slash.

    Raises:
        InputError: It is not one, or it holds a password, which would show in the list of processes.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise InputError(f"{option} {_without_password(url)!r} must be a plain http:// or https:// address")
    if parts.username or parts.password:
        raise InputError(f"{option} holds a user or a password; leave them out and give them by the environment")
    return url.rstrip("/")


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url.rpartition("@")[2]


Auth = Callable[[requests.PreparedRequest], requests.PreparedRequest]


def anonymous(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """No credentials; without it `requests` would send those that ~/.netrc has for the server."""
    return request


def credentials(environment: Mapping[str, str]) -> Auth:
    """Return how requests are authorised: a user with a password, a bearer token, or not at all.

    Raises:
        InputError: Half of it is missing, or both are given.
    """
    user, password, token = (environment.get(name, "") for name in (USER, PASSWORD, TOKEN))
    if bool(user) != bool(password):
        raise InputError(f"set both {USER} and {PASSWORD}, or neither")
    if token and user:
        raise InputError(f"set either {TOKEN} or {USER} and {PASSWORD}, not both")
    if token:
        if not token.isascii() or not token.isprintable():
            raise InputError(f"{TOKEN} holds characters that no header can hold; check for a stray line break")
        return _Bearer(token)
    return HTTPBasicAuth(user.encode(), password.encode()) if user else anonymous


class _Bearer:
    """Puts the token on each request; its value shows nowhere else."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def open_session(auth: Auth = anonymous) -> requests.Session:
    """Return a session; a session serves one thread."""
    session = requests.Session()
    session.auth = auth
    session.headers["User-Agent"] = "convirt"
    return session


def persist(
    action: Callable[[], Result], what: str, patience: Patience, *, sleep: Callable[[float], object] = time.sleep
) -> Result:
    """Do `action` until it succeeds, waiting longer from try to try.

    Args:
        action: Raises `Transient`, or what `requests` raises, if it is worth another try.
        what: What it does, for messages: the address that is asked.
        patience: When to give up.
        sleep: Waits so many seconds; may raise to end the waiting.

    Raises:
        InputError: It kept failing, or its certificate, address or proxy cannot be used.
    """
    wait, since = patience.first_wait, time.monotonic()
    while True:
        try:
            return action()
        except Transient as failure:
            last: Exception = failure
            if failure.progress:
                wait, since = patience.first_wait, time.monotonic()
            asked = failure.wait
        except (requests.RequestException, HTTPError) as error:
            _give_up_at_once(error, what)
            last, asked = error, None
        pause = min(wait, _LONGEST_WAIT) if asked is None else max(asked, 0.0)
        if time.monotonic() - since + pause > patience.seconds:
            raise InputError(
                f"{what}: gave up after {time.monotonic() - since:.0f} s ({explain(last)}); check that the server runs "
                "and can be reached, then run the same command again to go on where it stopped"
            ) from last
        sleep(pause)
        wait = wait * 2 if asked is None else wait


def check_status(response: requests.Response) -> requests.Response:
    """Return an answer that succeeded.

    Raises:
        Transient: The server is busy or out of order; it may say for how long.
        Refused: Another try will not change the answer.
    """
    status = response.status_code
    if status < 400:
        return response
    said = f"the server answered {status} {response.reason or ''}".rstrip()
    if status in _BUSY:
        raise Transient(said, wait=_retry_after(response))
    raise Refused(said, status)


def explain(error: Exception) -> str:
    """Say in a few words what failed: the innermost reason, without memory addresses and repetition."""
    if isinstance(error, Transient):
        return str(error)
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not answer"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    inner: object = error
    while isinstance(inner, Exception):
        deeper = getattr(inner, "reason", None) or next((a for a in inner.args if isinstance(a, Exception)), None)
        if not isinstance(deeper, Exception):
            break
        inner = deeper
    text = str(inner).rpartition(": ")[2] or type(inner).__name__
    return " ".join(text.split())[:200]


def _give_up_at_once(error: Exception, what: str) -> None:
    if isinstance(error, requests.exceptions.SSLError):
        raise InputError(
            f"{what}: the certificate cannot be trusted ({explain(error)}); set REQUESTS_CA_BUNDLE to the file of the "
            "authority that signed it"
        ) from error
    hopeless = (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.InvalidProxyURL,
        requests.exceptions.TooManyRedirects,
        LocationParseError,
    )
    if isinstance(error, hopeless):
        raise InputError(f"{what}: {explain(error)}; check the address and the proxy") from error


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that the server asks to wait, given as a number or as a date; None if it does not say."""
    given = response.headers.get("Retry-After", "").strip()
    try:
        return float(Retry().parse_retry_after(given)) if given else None
    except (InvalidHeader, ValueError, OverflowError):
        return None
