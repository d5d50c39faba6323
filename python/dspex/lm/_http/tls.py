"""`TLS`: what secures the connections of an LM."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex.errors import ConfigError

if TYPE_CHECKING:
    import ssl

__all__ = ["TLS", "context_of"]


@dataclass(frozen=True, slots=True)
class TLS:
    """Whom to trust, and who we are, where the defaults will not do.

    Certificates and the names of hosts are always checked. The defaults are the authorities that the system
    trusts, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.

    Attributes:
        ca_file: A file of certificates (PEM) to trust in place of the system's.
        cert_file: A file with the certificate of this client (PEM), for servers that ask for one; it may hold
            the key too.
        key_file: A file with the key of that certificate. It must not need a password.

    Raises:
        ConfigError: If a file is not there or is none of those (`lm-tls`), when the value is made.
    """

    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    key_file: str | Path | None = None

    def __post_init__(self) -> None:
        if self.key_file is not None and self.cert_file is None:
            raise ConfigError(
                "a key without its certificate", code="lm-tls", hint="give cert_file= with key_file="
            )
        context_of(self)  # what is wrong with the files shows here, not in a call


@lru_cache(maxsize=64)
def context_of(tls: TLS | None) -> ssl.SSLContext:
    """The context for these settings; it is shared by all connections that have them."""
    import ssl  # nobody needs it before there is a connection to secure

    where: Any = None
    try:
        where = tls and tls.ca_file
        context = ssl.create_default_context(cafile=where or None)
        if tls is not None and tls.cert_file is not None:
            where = tls.cert_file
            context.load_cert_chain(tls.cert_file, tls.key_file, password=_no_password)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{str(where)[:200]!r} cannot be used for TLS: {error}"[:400],
            code="lm-tls",
            hint="give the path of a PEM file; a key must not need a password",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    """OpenSSL would ask on the terminal."""
    raise ValueError("its key needs a password")
