"""Credentials of a DICOMweb server: from the environment alone, as a command line shows to all users of a machine."""

from collections.abc import Mapping

import requests
from requests.auth import HTTPBasicAuth

from convirt.data.sources.http import Auth, anonymous
from convirt.errors import InputError

USER, PASSWORD, TOKEN = "CONVIRT_DICOMWEB_USER", "CONVIRT_DICOMWEB_PASSWORD", "CONVIRT_DICOMWEB_TOKEN"


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
