"""The encoder of a release as it will serve: in this process, or in a Triton server."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.encoder.selection import TRITON, Candidate, Encoder, available_cpus, candidates, choose
from service.encoder.triton_client import LANES, Address, Fallback, Triton
from service.encoder.triton_process import TritonServer
from service.errors import EncoderUnavailable, VitrineError
from service.observability.metrics import Metrics
from service.recommender.release import Release
from service.serving import model_repository
from service.settings import Settings

FIRST_LOOK = 2.0  # seconds that a start waits for Triton where it need not be there

logger = logging.getLogger("vitrine")


@dataclass(frozen=True, slots=True)
class OpenEncoder:
    """An encoder that is ready. encoder: None for a release without pictures; lanes: batches that it takes at once;
    end: to be called when it is not needed any more."""

    encoder: Encoder | None
    engine: str
    precision: str
    lanes: int
    end: Callable[[], None] | None = None


def open_encoder(release: Release, settings: Settings, metrics: Metrics) -> OpenEncoder:
    """Open the release's encoder as the settings ask. Raises EncoderUnavailable, EncoderAway."""
    cpus = settings.threads or available_cpus()
    if not release.encoders:
        # one lane more than there are cores: while one waits for the interpreter's lock, another uses its core
        return OpenEncoder(None, "", "fp32", cpus + 1)
    if settings.encoder == TRITON:
        return _in_triton(release, settings, cpus, metrics)
    return _in_process(release, settings, cpus)


def start_triton(settings: Settings, metrics: Metrics) -> TritonServer | None:
    """The server inside this container, where one is asked for."""
    if settings.encoder != TRITON or settings.triton_server is None:
        return None
    if settings.model_repository is None:
        raise EncoderUnavailable("VITRINE_TRITON_SERVER needs VITRINE_MODEL_REPOSITORY, the folder that it serves from")
    settings.model_repository.mkdir(parents=True, exist_ok=True)
    return TritonServer(
        settings.triton_server, settings.model_repository, url=settings.triton_url, observe=metrics.triton_starts.inc
    )


def _in_process(release: Release, settings: Settings, cpus: int) -> OpenEncoder:
    """The engine and precision that are the fastest here."""
    found = candidates(
        release.encoders, engine=settings.encoder, precision=settings.precision, engine_cache=settings.engine_cache
    )
    chosen = choose(found, release.golden_pixels(), release.golden.vectors, threads=cpus, lanes=cpus)
    logger.info("encoder: %s, the fastest of %s", chosen.candidate, dict(chosen.tried))
    return OpenEncoder(chosen.encoder, chosen.candidate.engine, chosen.candidate.precision, cpus + 1)


def _in_triton(release: Release, settings: Settings, cpus: int, metrics: Metrics) -> OpenEncoder:
    """A Triton server; with the release's own encoder behind it if allowed."""
    address = Address(settings.triton_url, settings.triton_model, release.number, settings.triton_timeout)
    if settings.model_repository is not None:
        # beside the start: a folder on a network may be slow, or away
        threading.Thread(target=_bring, args=(release, settings.model_repository), name="bring", daemon=True).start()
    golden, vectors = release.golden_pixels(), release.golden.vectors["fp32"]
    triton = Triton(address, golden, vectors, observe=metrics.triton_of(release.number).set)

    def end() -> None:
        triton.close()
        metrics.forget_triton_of(release.number)

    if not settings.triton_fallback:
        if not triton.wait(settings.triton_wait):
            end()
            raise EncoderUnavailable(
                f"Triton at {settings.triton_url} did not serve {settings.triton_model} version {release.number} "
                f"within {settings.triton_wait:g} s ({triton.away}); install the release with vitrine "
                "install-encoder, or set VITRINE_TRITON_FALLBACK=true"
            )
        return OpenEncoder(triton, TRITON, "fp32", LANES, end)
    own = Candidate("onnxruntime", "fp32", release.encoders["fp32"], settings.engine_cache).open(
        threads=cpus, lanes=cpus
    )
    triton.wait(min(settings.triton_wait, FIRST_LOOK))
    both = Fallback(triton, own, observe=metrics.triton_fallbacks.inc)
    return OpenEncoder(both, TRITON, "fp32", LANES, end)


def _bring(release: Release, repository: Path) -> None:
    """Give Triton this release's encoder. Without it, or without a folder that can be written, the service goes on."""
    try:
        logger.info("Triton: %s", model_repository.install(release, repository))
    except (OSError, VitrineError) as error:
        logger.warning("Triton is not given release %s: %s", release.number, error)
