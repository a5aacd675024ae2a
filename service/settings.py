"""Everything that can be set from outside, in one place: environment variables with the prefix VITRINE_."""

import difflib
import os
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from service.encoder.preprocessing import MAX_PIXELS
from service.encoder.selection import AUTO, CHOICES, PRECISIONS
from service.errors import UnsafeSettings
from service.recommender.user_keys import DEFAULT_USER_KEY

PREFIX = "VITRINE_"
# what Kubernetes writes into pods beside a Service called vitrine
OF_SERVICES = re.compile(f"{PREFIX}(SERVICE|PORT)(_|$)")


class ApiKey(BaseModel):
    """One of several API keys."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=8)
    rate: float | None = Field(None, gt=0)


class Settings(BaseSettings):
    """Made by `app.py` and the command line only; `serving/loaded_release.py` gets them, all else gets arguments."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    release: Path = Field(
        Path("releases/1"), description="folder of the release to serve, or a file beside it with its number, watched"
    )
    candidate: Path | None = Field(None, description="a second release to try beside it, as release")
    candidate_mode: Literal["shadow", "canary"] = Field("shadow", description="shadow: asked unseen; canary: answers")
    candidate_share: float = Field(0.1, ge=0, le=1, description="of the queries (shadow) or the users (canary)")
    candidate_errors: float = Field(0.02, ge=0, le=1, description="share of failed queries past which it is taken out")
    candidate_overlap: float = Field(
        0.1, ge=0, le=1, description="share of the release's first ten items below which a shadow is taken out"
    )
    candidate_fewest: int = Field(100, gt=0, description="queries before either of these bounds counts")
    admin_key: str | None = Field(None, min_length=8, description="secret of POST /admin/release; without it, none")
    store: str | None = Field(
        None,
        description="what keeps catalogue changes and events: a file (SQLite), or postgresql+psycopg://...; not set: "
        "nothing",
    )
    store_wait: float = Field(30.0, ge=0, description="seconds to wait for the store at start")
    catalogue_key: str | None = Field(
        None, min_length=8, description="secret of PUT, PATCH, DELETE /items/...; without it, none"
    )
    live_items: int = Field(
        20_000, gt=0, description="items that may differ from the release before a new one is said to be due"
    )
    events_kept: float = Field(400.0, ge=0, description="days after which the store forgets an event; 0: never")
    user_key: str = Field(
        DEFAULT_USER_KEY,
        description="secret that user ids are hashed with; must be the one the release was trained with",
    )
    max_body_bytes: int = Field(20 * 1024 * 1024, gt=0, description="longest body that a request may have")
    max_uploads: int = Field(256, gt=0, description="requests with a body that may arrive or be answered at once")
    max_upload_bytes: int = Field(64 * 1024 * 1024, gt=0, description="bytes that their bodies may have together")
    body_stall: float = Field(10.0, gt=0, description="seconds that a body may pause before it is answered 408")
    keep_alive: int = Field(75, ge=0, description="seconds that a connection without a request is kept")
    cors_origins: tuple[str, ...] = Field(
        (), description='origins whose pages may call this, as JSON: ["https://shop.example"]; "*" alone: any'
    )
    max_pixels: int = Field(MAX_PIXELS, gt=0, description="most pixels that a picture may have")
    max_waiting: int = Field(64, gt=0, description="requests that may wait for a free thread; more are answered 429")
    deadline: float = Field(5.0, gt=0, description="seconds from its whole body to an answer, else 503")
    grpc_host: str = Field("127.0.0.1", description="address that gRPC listens on")
    grpc_port: int = Field(3001, ge=0, lt=65536, description="port of gRPC; 0: none")
    grpc_max_age: float = Field(
        300.0, gt=0, description="seconds after which a gRPC connection is closed, so that clients find new pods"
    )
    metrics_host: str = Field("127.0.0.1", description="address that Prometheus finds /metrics on")
    metrics_port: int = Field(3002, ge=0, lt=65536, description="port of /metrics; 0: none")
    api_key: str | None = Field(None, min_length=8, description="secret that every request but a probe's must send")
    api_keys: dict[str, ApiKey] = Field(
        {}, description='several, by name, as JSON: {"shop": {"key": "...", "rate": 50}}; rate: requests a second'
    )
    allow_anonymous: bool = Field(False, description="serve other machines without an API key")
    trusted_keys: Path | None = Field(
        None, description="PEM file, or folder, of public keys; releases that none of them signed are refused"
    )
    signing_key: Path | None = Field(None, description="PEM file of the private key that vitrine train signs with")
    tls_certificate: Path | None = Field(None, description="PEM file; with tls_key, HTTP and gRPC are served over TLS")
    tls_key: Path | None = Field(None, description="PEM file")
    drain: float = Field(2.0, ge=0, description="seconds after SIGTERM in which callers are asked to leave")
    threads: int | None = Field(None, gt=0, description="CPU threads (default: the container's limit)")
    encoder: str = Field(AUTO, description=f"engine of the encoder: {', '.join(CHOICES)}; auto takes the fastest here")
    triton_url: str = Field("127.0.0.1:8001", description="host:port of Triton's gRPC, for VITRINE_ENCODER=triton")
    triton_model: str = Field("encoder", description="the model there; its version is the release's number")
    triton_timeout: float = Field(2.0, gt=0, description="seconds that a call of Triton may take")
    triton_wait: float = Field(30.0, ge=0, description="seconds to wait for Triton at start, where nothing falls back")
    triton_fallback: bool = Field(False, description="encode in this process while Triton is away, in place of 503")
    triton_server: Path | None = Field(None, description="tritonserver to start and watch, in place of one beside us")
    model_repository: Path | None = Field(
        None, description="folder that Triton serves from: at start the release's encoder is put there, where it lacks"
    )
    log_format: Literal["text", "json"] = Field("text", description="of the log lines")
    log_requests: Literal["none", "failed", "all"] = Field("failed", description="which requests get a log line")
    traces_endpoint: str | None = Field(None, description="URL of a collector, OTLP over HTTP; without it, no traces")
    traces_share: float = Field(0.05, ge=0, le=1, description="of the requests whose callers have not decided")
    recall_every: float = Field(60.0, ge=0, description="seconds between probes of the index's recall; 0: none")
    drift_window: float = Field(3600.0, ge=0, description="seconds of photos that drift is measured on; 0: never")
    engine_cache: Path | None = Field(
        None,
        description="folder that keeps the engines which TensorRT builds in minutes; else each start does",
    )
    precision: str = Field(AUTO, description=f"of the encoder: {', '.join((AUTO, *PRECISIONS))}, if in the release")

    @classmethod
    def read(cls) -> "Settings":
        """From the environment. Raises UnsafeSettings that names what is wrong, and repeats no value: it may be a
        secret."""
        try:
            return cls()
        except ValidationError as error:
            wrong = [f"{PREFIX}{'.'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors()]
            raise UnsafeSettings("; ".join(wrong)) from None
        except SettingsError as error:
            field = re.search('field "(.*?)"', str(error))
            raise UnsafeSettings(f"{PREFIX}{field[1].upper() if field else '...'}: expected JSON") from None

    @classmethod
    def mistyped(cls) -> list[str]:
        """Variables of the environment that look like settings and are none, each with the one that may be meant."""
        known = [PREFIX + name.upper() for name in cls.model_fields]
        unknown = [name for name in sorted(os.environ) if name.startswith(PREFIX) and name not in known]
        meant = {name: difflib.get_close_matches(name, known, n=1) for name in unknown if not OF_SERVICES.match(name)}
        return [f"{name} is no setting" + (f"; is {near[0]} meant?" if near else "") for name, near in meant.items()]
