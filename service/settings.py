"""Everything that can be set from outside, in one place: environment variables with the prefix VITRINE_."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.encoder import AUTO, CHOICES, PRECISIONS
from service.images import MAX_PIXELS
from service.ranker import DEFAULT_USER_KEY


class Settings(BaseSettings):
    """Read by `service/app.py` and the command line only; everything else gets arguments."""

    model_config = SettingsConfigDict(env_prefix="VITRINE_")

    release: Path = Field(Path("releases/1"), description="folder of the release to serve")
    user_key: str = Field(
        DEFAULT_USER_KEY,
        description="secret that user ids are hashed with; must be the one the release was trained with",
    )
    max_body_bytes: int = Field(20 * 1024 * 1024, gt=0, description="longest body that a request may have")
    max_pixels: int = Field(MAX_PIXELS, gt=0, description="most pixels that a picture may have")
    max_waiting: int = Field(64, gt=0, description="requests that may wait for a free thread; more are answered 429")
    deadline: float = Field(5.0, gt=0, description="seconds after which a request that waits is answered 503")
    threads: int | None = Field(None, gt=0, description="CPU threads (default: the container's limit)")
    encoder: str = Field(AUTO, description=f"engine of the encoder: {', '.join(CHOICES)}; auto takes the fastest here")
    precision: str = Field(AUTO, description=f"of the encoder: {', '.join((AUTO, *PRECISIONS))}, if in the release")
