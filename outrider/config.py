"""Where models are kept that `outrider models` downloads; the only module of the command that reads the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from speculation.settings import Settings, load_settings

ENV_PREFIX = "OUTRIDER_MODELS_"


def _default_folder() -> Path:
    return Path.home() / ".cache" / "outrider" / "models"


class ModelsConfig(Settings):
    """``folder``: models that are kept for later, one folder each."""

    folder: Path = Field(default_factory=_default_folder)


def load_config() -> ModelsConfig:
    """From the environment (``OUTRIDER_MODELS_FOLDER``). Raises ``ConfigurationError``."""
    return load_settings(ModelsConfig, None, ENV_PREFIX)
