"""Failed requests: whether another attempt may succeed, and their reasons in words.

Each protocol's package has exceptions of its own, whose causes are searched.
"""

import ssl
from collections.abc import Iterator

_TEMPORARY = (408, 425, 429)  # of the statuses 4xx
_PERMANENT = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError),
    ValueError,  # such as an invalid name of a bucket, or a certificate of another host
)
_CREDENTIALS = (
    "set credentials as the protocol's own tools expect them: AWS_ACCESS_KEY_ID or ~/.aws (s3://;"
    " FSSPEC_S3_ANON=true for public data), gcloud (gs://), ~/.netrc (https://)"
)

_NOT_HTTP = ("BadStatusLine", "BadHttpMessage", "BadHttpMethod", "InvalidHeader")
"""The exceptions of aiohttp, by name, for replies that are not HTTP."""
_NOT_TLS = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
"""The reasons of OpenSSL for a server that does not speak TLS."""


def _status(error: BaseException) -> int:
    """The HTTP status of an error; 0 if it has none."""
    name = "status" if hasattr(error, "status") else "code"
    status = getattr(error, name, 0)
    return status if isinstance(status, int) else 0


def _is_refused(error: BaseException) -> bool:
    missing = "Credential" in type(error).__name__  # NoCredentialsError, DefaultCredentialsError …
    return missing or isinstance(error, PermissionError) or _status(error) in (401, 403)


def is_permanent(error: BaseException) -> bool:
    status = _status(error)
    is_client_error = 400 <= status < 500 and status not in _TEMPORARY
    if is_client_error or _is_refused(error) or isinstance(error, _PERMANENT):
        return True
    return _is_not_http(error) or ((tls := _tls_error(error)) is not None and _is_lasting(tls))


def refusal(error: BaseException) -> str:
    if _is_not_http(error):
        return f"the reply is not HTTP, so another service may answer there ({shown(error)})"
    if (tls := _tls_error(error)) is not None:
        return _tls_refusal(tls)
    if _is_refused(error):
        return f"access was refused ({shown(error)}); {_CREDENTIALS}"
    if isinstance(error, FileNotFoundError) or _status(error) == 404:
        return "the file does not exist; check the address"
    return f"the request failed permanently with {shown(error)}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause, the cause of that, and so on."""
    found: BaseException | None = error
    for _ in range(20):  # a chain may be a circle
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__


def _is_not_http(error: BaseException) -> bool:
    return any(type(cause).__name__ in _NOT_HTTP for cause in _causes(error))


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    # Packages derive their own exceptions from it, which lack its attributes.
    found = (cause for cause in _causes(error) if isinstance(cause, ssl.SSLError))
    return next((cause for cause in found if type(cause).__module__ == "ssl"), None)


def _is_lasting(error: ssl.SSLError) -> bool:
    return isinstance(error, ssl.SSLCertVerificationError) or error.reason in _NOT_TLS


def _tls_refusal(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"TLS failed: the certificate of the server is not trusted ({error.verify_message});"
            " check the address, or name the certificates to trust in SSL_CERT_FILE"
            " (AWS_CA_BUNDLE for s3://)"
        )
    if error.reason in _NOT_TLS:
        return (
            "TLS failed: the server does not speak it; check the port, or use an address that"
            " begins with http:// (in AWS_ENDPOINT_URL for s3://)"
        )
    return f"TLS failed ({shown(error)})"


def describe(error: BaseException) -> str:
    """The reason of a failure that another attempt may not meet."""
    tls = _tls_error(error)
    return shown(error) if tls is None else _tls_refusal(tls)


def shown(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300].rstrip(": ")
