"""Translates botocore's errors on SQS into the words of this library."""

from __future__ import annotations

import re

from backpressure.providers.failures import Redactor, network_label

__all__ = ["CodesAlone", "label"]

# Exceptions of botocore, by name: to use their classes, botocore would have to be imported.
_CLASSES = {
    "NoCredentialsError": "auth",
    "PartialCredentialsError": "auth",
    "CredentialRetrievalError": "auth",
    "TokenRetrievalError": "auth",
    "NoAuthTokenError": "auth",
    "SSOError": "auth",
    "RefreshWithMFAUnsupportedError": "auth",
    "UnknownCredentialError": "auth",
    "NoRegionError": "provider",
    "InvalidRegionError": "provider",
    "ProfileNotFound": "provider",
    "ConfigNotFound": "provider",
    "ConfigParseError": "provider",
    "InvalidConfigError": "provider",
    # These are OSErrors too, for historical reasons.
    "ReadTimeoutError": "timeout",
    "ConnectTimeoutError": "timeout",
    "SSLError": "protocol",
    "ProxyConnectionError": "connect",
}

# Error codes by their last word: what comes before it depends on the protocol that botocore speaks.
_CODES = {
    "AuthFailure": "auth",
    "ExpiredToken": "auth",
    "ExpiredTokenException": "auth",
    "IncompleteSignature": "auth",
    "IncompleteSignatureException": "auth",
    "InvalidAccessKeyId": "auth",
    "InvalidClientTokenId": "auth",
    "InvalidSignatureException": "auth",
    "MissingAuthenticationToken": "auth",
    "MissingAuthenticationTokenException": "auth",
    "RequestExpired": "auth",
    "SignatureDoesNotMatch": "auth",
    "UnrecognizedClientException": "auth",
    "AccessDenied": "acl",
    "AccessDeniedException": "acl",
    "NonExistentQueue": "missing",
    "QueueDoesNotExist": "missing",
    "InvalidAddress": "missing",
    "OverLimit": "busy",
    "RequestThrottled": "busy",
    "RequestThrottledException": "busy",
    "Throttling": "busy",
    "ThrottlingException": "busy",
    "ThrottledException": "busy",
    "TooManyRequestsException": "busy",
}
_STATUSES = {401: "auth", 403: "acl", 429: "busy", 502: "connect", 503: "busy", 504: "timeout"}


def label(error: Exception) -> str | None:
    """Return the ``error_type`` of what a client raised, or ``None`` where it says nothing of SQS or the network."""
    for kind in type(error).__mro__:
        if kind.__name__ in _CLASSES:
            return _CLASSES[kind.__name__]
        if kind.__name__ == "HTTPClientError":
            return network_label(error) or "protocol"
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return None
    code = str(response.get("Error", {}).get("Code", ""))
    if (known := _CODES.get(code.rpartition(".")[2])) is not None:
        return known
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return _STATUSES.get(status, "busy" if status >= 500 else None)


class CodesAlone(Redactor):
    """Shortens a message to the code that SQS answered, and the operation.

    The rest may be anything: SQS explains a wrong signature with the session token, and `credential_process` with the
    text that its program wrote.
    """

    def __call__(self, text: str) -> str:
        # A key's id has only capitals and digits, so it is not mistaken for a code.
        found = re.match(
            r"An error occurred \((?:\d{3}|(?=[A-Za-z.]*[a-z])[A-Za-z.]{1,64})\) when calling the \w+ operation", text
        )
        return found[0] if found else ""
