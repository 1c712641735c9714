"""Where models are kept, and the key for an agent or a verifier; the only module of the command that reads the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from speculation.certificates import ClientTls, require_authorities, require_pair
from speculation.errors import ConfigurationError, InvalidRequestError
from speculation.keys import load_key, require_key
from speculation.settings import Settings, load_settings

ENV_PREFIX = "OUTRIDER_MODELS_"


def _default_folder() -> Path:
    try:
        return Path.home() / ".cache" / "outrider" / "models"
    except RuntimeError as error:
        raise ConfigurationError(f"this user has no home folder; set {ENV_PREFIX}FOLDER to where models are kept") from error


class ModelsConfig(Settings):
    """``folder``: models that are kept for later, one folder each."""

    folder: Path = Field(default_factory=_default_folder)


class _Caller(BaseSettings):
    """Who calls, as the environment says."""

    model_config = SettingsConfigDict(env_prefix="OUTRIDER_", extra="ignore")

    api_key: SecretStr | None = None


def caller_key(service: str | None, file: Path | None) -> str | None:
    """The key for a running service at ``service``: the word in ``file``, else ``OUTRIDER_API_KEY``. None where there is
    neither, and for services of this process, which ask for none.

    Raises ``InvalidRequestError`` for a file without a service, ``ConfigurationError`` for what is no key.
    """
    if service is None:
        if file is not None:
            raise InvalidRequestError("--key-file: it is for a running agent; give its URL as --agent, too")
        return None
    if file is not None:
        return load_key(file)
    key = _Caller().api_key
    text = "" if key is None else key.get_secret_value()
    require_key(text or None, "OUTRIDER_API_KEY")
    return text or None


def caller_tls(ca: Path | None, cert: Path | None, cert_key: Path | None) -> ClientTls | None:
    """How to call a verifier over TLS; None for plain text. Raises ``ConfigurationError`` for files that cannot be right."""
    require_pair("--cert", cert, "--cert-key", cert_key)
    require_authorities("--ca", ca)
    if ca is None and cert is not None:
        raise ConfigurationError("--cert: without --ca the verifier is called in plain text; give it, too")
    return None if ca is None else ClientTls(ca, cert, cert_key)


def load_config() -> ModelsConfig:
    """From the environment (``OUTRIDER_MODELS_FOLDER``). Raises ``ConfigurationError``."""
    return load_settings(ModelsConfig, None, ENV_PREFIX)
