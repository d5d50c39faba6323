"""`Address`: which server a model's name means, and what is needed to speak to it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from dspex._lm_failures import no_key
from dspex._timeouts import shown
from dspex.errors import ConfigError, LMAuthError, did_you_mean
from dspex.lm._http.transport import Endpoint

if TYPE_CHECKING:
    from dspex.lm._codec import ModelType
    from dspex.lm._http.tls import TLS

__all__ = ["Address", "checked_proxy"]

LONGEST_LABEL: Final = 63
"""Characters between two dots of a host's name, by the rules of DNS."""
LONGEST_NAME: Final = 253

PUBLIC_BASE = "https://api.openai.com/v1"
ANTHROPIC_BASE = "https://api.anthropic.com/v1"

COMPATIBLE_PREFIXES = frozenset(
    {"deepseek", "groq", "hosted_vllm", "lm_studio", "mistral", "ollama", "openrouter", "together_ai"}
)
"""Prefixes besides `openai` under which DSPy, given an address, speaks chat completions as we do."""

PREFIXES_OF_DSPY = frozenset(
    {
        "ai21", "anthropic", "azure", "azure_ai", "azure_text", "bedrock", "cerebras", "cloudflare",
        "codestral", "cohere", "cohere_chat", "databricks", "deepinfra", "fireworks_ai", "gemini", "github",
        "github_copilot", "huggingface", "nvidia_nim", "ollama_chat", "openai_like", "perplexity",
        "replicate", "sagemaker", "sagemaker_chat", "sambanova", "snowflake", "vertex_ai", "watsonx",
        "watsonx_text", "xai", "zai",
    }
)  # fmt: skip
"""The better known of those that only DSPy serves. Others go to it too, unless they are slips of these."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a model lives.

    Attributes:
        model: The model with its prefix, as given.
        prefix: The provider, such as `openai`.
        spoken: Whether dspex speaks to that provider itself; else only DSPy does, in a worker.
        name: The model's name to the server.
        base: The server's address, up to and including `/v1`; empty where only DSPy knows it.
        proxy: The environment's proxy for it.
    """

    model: str
    prefix: str
    spoken: bool
    name: str
    base: str
    proxy: str | None = field(repr=False)  # it may hold a password

    @classmethod
    def of(cls, model: str, api_base: str | None, model_type: ModelType = "chat") -> Self:
        """The address of this model, from the arguments or else the environment.

        Args:
            model: The model with its prefix.
            api_base: The server's address, if it is given.
            model_type: What it is asked by.

        Raises:
            ConfigError: If the model or the address cannot be right.
        """
        prefix, name = _split_model(model)
        if model_type == "responses":
            spoken = prefix == "openai"
        else:
            spoken = prefix in ("openai", "anthropic") or (prefix in COMPATIBLE_PREFIXES and bool(api_base))
        if not spoken:
            return cls(model, prefix, spoken, name, _checked(api_base) if api_base else "", None)
        base = _base(prefix, api_base)
        return cls(model, prefix, spoken, name, base, _proxy(base))

    def endpoint(self, path: str, proxy: str | None = None, tls: TLS | None = None) -> Endpoint:
        """Where requests to this path below the address go.

        Args:
            path: Beginning with `/`.
            proxy: The proxy to take in place of the environment's.
            tls: What secures the connection.
        """
        parts = urlsplit(self.base)
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        return Endpoint(secure, parts.hostname or "", port, parts.path + path, proxy or self.proxy, tls)

    @property
    def base_for_dspy(self) -> str:
        """The address to tell DSPy; empty where DSPy finds the same by itself.

        Of Anthropic's it has two ideas, with `/v1` and without, and knows which only where it is not told.
        """
        return "" if self.prefix == "anthropic" and self.base == _base(self.prefix, None) else self.base

    @property
    def variable(self) -> str:
        """The environment variable with the key."""
        return f"{self.prefix.upper()}_API_KEY"

    def key(self, given: str | None) -> str | None:
        """The key to send, given or else from the environment; None for a server that needs none.

        Raises:
            LMAuthError: If there is none where one is needed, or it cannot be one.
        """
        key = given or os.environ.get(self.variable) or None
        if key is None and self.spoken and not _is_loopback(self.base):
            raise no_key(self.base, self.variable, self.model)
        return None if key is None else self.checked_key(key)

    def checked_key(self, key: str) -> str:
        """The key, if it can be sent.

        Raises:
            LMAuthError: If it cannot (`lm-bad-key`).
        """
        if not (key.isascii() and key.isprintable()):
            raise LMAuthError(
                f"the key for {self.base or self.prefix} holds a line break or another character no key has",
                code="lm-bad-key",
                hint=f"look at {self.variable} or api_key=; a file's last line break is often the reason",
                variable=self.variable,
                api_base=self.base,
            )
        return key


def _split_model(model: str) -> tuple[str, str]:
    if not isinstance(model, str):
        raise ConfigError(
            f"a model is named by a text, not by {model!r}"[:200],
            code="lm-model",
            hint="write 'openai/<name>'",
        )
    prefix, slash, name = model.partition("/")
    if not slash or not prefix or not name:
        raise ConfigError(
            f"{model!r} is not a model: a provider and a name are needed",
            code="lm-model",
            hint=f"write 'openai/{name or model.strip('/') or '<name>'}'",
        )
    known = PREFIXES_OF_DSPY | COMPATIBLE_PREFIXES | {"openai"}
    if prefix not in known and (near := did_you_mean(prefix, sorted(known), cutoff=0.8)):
        raise ConfigError(
            f"{model!r}: there is no provider {prefix!r}",
            code="lm-model",
            hint=f"{near}If the server speaks OpenAI's chat completions, use 'openai/{name}' with api_base=",
        )
    return prefix, name


def _base(prefix: str, given: str | None) -> str:
    if prefix == "anthropic":
        told = os.environ.get("ANTHROPIC_API_BASE") or os.environ.get("ANTHROPIC_BASE_URL")
        if told and not given:  # by custom these end before the version
            given = told if told.rstrip("/").endswith("/v1") else f"{told.rstrip('/')}/v1"
        return _checked(given or ANTHROPIC_BASE)
    environment = os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL")
    return _checked(given or (environment if prefix == "openai" else None) or PUBLIC_BASE)


def _checked(base: str) -> str:
    if not isinstance(base, str):
        raise _no_server(shown(base))
    # `urlsplit` drops line breaks; errors and records would show them.
    if not base.isprintable() or " " in base:
        raise _no_server(repr(base[:200]))
    try:
        parts = urlsplit(base)
        port = parts.port
    except ValueError as error:
        raise _no_server(repr(base[:200]), f": {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise _no_server(repr(base[:200]))
    _check_host(parts.hostname)
    if parts.username or parts.password or parts.query or parts.fragment:
        # Addresses are shown in errors and records, where a password has no place.
        raise ConfigError(
            f"the address of {parts.hostname} carries more than host and path",
            code="lm-api-base",
            hint="give the key by api_key=, not inside the address",
        )
    return base.rstrip("/")


def _check_host(host: str) -> None:
    """See to it that the resolver can be asked for the host; it raises a `UnicodeError` for others."""
    if ":" in host:  # an address of IPv6
        return
    name = host.removesuffix(".")
    longest = max(map(len, name.split(".")))
    if name.isascii() and longest <= LONGEST_LABEL and len(name) <= LONGEST_NAME and ".." not in name:
        return
    try:
        if len(name.encode("idna")) <= LONGEST_NAME:  # of a name in another script
            return
    except UnicodeError:
        pass
    raise _no_server(repr(host[:200]), ": its name is longer than names are, or has an empty part")


def _no_server(given: str, why: str = "") -> ConfigError:
    return ConfigError(
        f"{given} is not the address of a server{why}",
        code="lm-api-base",
        hint="write it as http(s)://host[:port]/v1",
    )


def checked_proxy(proxy: str) -> str:
    """The address of a proxy, as given.

    Raises:
        ConfigError: If it is none (`lm-proxy-address`).
    """
    try:
        parts = urlsplit(proxy)
        if parts.scheme == "http" and parts.hostname and parts.port != 0:
            return proxy
    except ValueError:
        pass
    raise ConfigError(  # it may hold a password, so that it is not repeated
        "the proxy's address is not http://[user:password@]host:port",
        code="lm-proxy-address",
        hint="correct proxy=, or https_proxy in the environment; a proxy that is https or SOCKS itself takes "
        "transport=dspex.lm.AiohttpTransport(...)",
    )


_SYSTEM_PROXIES: Final = sys.platform in ("darwin", "win32")
"""Whether the system has settings for proxies besides the environment."""


def _proxy(base: str) -> str | None:
    """The environment's proxy for this server.

    The HTTP client could look for it itself, but it would read `.netrc` along with it: a file and a thread
    for every call, and credentials that are none of an LM's.
    """
    if _is_loopback(base) or not (
        _SYSTEM_PROXIES or any(name.lower().endswith("_proxy") for name in os.environ)
    ):
        return None
    from urllib.request import getproxies, proxy_bypass  # an HTTP client of its own, for the few with a proxy

    parts = urlsplit(base)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _is_loopback(base: str) -> bool:
    host = urlsplit(base).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
