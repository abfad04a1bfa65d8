"""What the registry knows of a version of a model."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A registered version, with its files in a local folder."""

    name: str
    version: str
    folder: Path
    tags: dict[str, str]
    metrics: dict[str, float]
    run_id: str
