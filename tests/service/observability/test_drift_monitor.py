"""A service under traffic says whether it is the traffic that its release expects."""

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc

from service.observability.drift_monitor import WAITING, DriftMonitor, Window
from service.recommender.drift.reference import CATEGORIES, EMBEDDINGS, IN_CATALOGUE, LIKENESS, WHAT
from service.recommender.drift.stability import Drift
from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from service.recommender.release import Release
from tests import colours
from tests.processes import FIXTURES, Service, serve, wait_until
from tests.service.recommender.test_release import reseal

ADMIN = {"X-Admin-Key": "an admin's secret"}
SECONDS = 60  # of the window: longer than a test's traffic takes
PHOTOS = 150  # enough to tell a large drift from chance


@pytest.fixture(scope="module")
def two_releases(colour_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release 1, and release 2, which is the same under another number."""
    folder = tmp_path_factory.mktemp("two")
    for number in ("1", "2"):
        shutil.copytree(colour_release, folder / number)
    reseal(folder / "2", release=2)
    return folder


@pytest.fixture
def watched(two_releases: Path, tmp_path: Path) -> Iterator[Service]:
    """A service on release 1, whose photos nobody has counted yet."""
    settings = {"VITRINE_ADMIN_KEY": ADMIN["X-Admin-Key"], "VITRINE_DRIFT_WINDOW": str(SECONDS)}
    with serve(two_releases / "1", tmp_path, settings) as service:
        yield service


def value(service: Service, name: str, what: str) -> float:
    """Of a metric of drift."""
    return service.metric(f'{name}{{what="{what}"}}')


def send(service: Service, photos: Sequence[bytes]) -> None:
    """Ask about photos, one after the other, no more at a time than are counted in a second, until they are counted."""
    counted = value(service, "vitrine_drift_photos", EMBEDDINGS)
    for at, photo in enumerate(photos, start=1):
        route = "/recommend" if at % 2 else "/similar"
        service.http.post(route, files={"image": photo}).raise_for_status()
        if at % WAITING == 0 or at == len(photos):
            wait_until(lambda sent=at: value(service, "vitrine_drift_photos", EMBEDDINGS) == counted + sent)


def drifts(service: Service) -> set[str]:
    """What the alert would be about."""
    found = {
        what: (value(service, "vitrine_drift", what), value(service, "vitrine_drift_chance", what)) for what in WHAT
    }
    return {what for what, (psi, chance) in found.items() if psi > 0.25 and psi > chance}


def test_traffic_of_each_kind_shows_in_the_metrics(watched: Service) -> None:
    """Like the catalogue's: none. Of one category: that. Of something else: far, and foreign. A switch begins anew."""
    rng = np.random.default_rng(6)
    assert math.isnan(value(watched, "vitrine_drift", EMBEDDINGS))
    send(watched, colours.photos(PHOTOS, rng=rng))
    assert drifts(watched) == set()
    watched.http.post("/admin/release", json={"release": "2"}, headers=ADMIN).raise_for_status()
    assert value(watched, "vitrine_drift_photos", EMBEDDINGS) == 0
    send(watched, colours.photos(PHOTOS, rng=rng, colours=["blue"]))
    assert drifts(watched) == {EMBEDDINGS, CATEGORIES}
    watched.http.post("/admin/release", json={"release": "1"}, headers=ADMIN).raise_for_status()
    send(watched, colours.noise(PHOTOS, rng=rng))
    assert {IN_CATALOGUE, LIKENESS} <= drifts(watched)


def test_the_port_of_metrics_tells_drift_as_json(watched: Service) -> None:
    """Release, window and the photos in each bin; over gRPC they count as over HTTP. Nothing is known of the photos."""
    photos = colours.photos(8, rng=np.random.default_rng(7))
    send(watched, photos[:4])
    with tritonclient.grpc.InferenceServerClient(watched.grpc) as client:
        image = tritonclient.grpc.InferInput("IMAGE", [4], "BYTES")
        image.set_data_from_numpy(np.array(photos[4:], object))
        client.infer("recommender", [image])
    wait_until(lambda: value(watched, "vitrine_drift_photos", EMBEDDINGS) == 8)
    url = f"http://127.0.0.1:{watched.metrics}"
    said = httpx.get(f"{url}/drift").json()
    drift = Drift.from_json(said)
    assert (drift.release, drift.photos, drift.seconds, drift.unmeasured) == ("1", 8, SECONDS, "")
    assert sum(next(shift.seen for shift in drift.shifts if shift.what == CATEGORIES)) == 8
    assert {each for shift in said["shifts"] for each in shift} == {
        "what", "psi", "chance", "verdict", "photos", "names", "expected", "seen",
    }  # fmt: skip
    for route in ("", "/metrics"):
        assert 'vitrine_drift_photos{what="embeddings"} 8.0' in httpx.get(url + route).text


@pytest.mark.parametrize(
    ("release", "window", "why"),
    [("fixture", "3600", "without drift.json"), ("1", "0", "VITRINE_DRIFT_WINDOW is 0")],
)
def test_what_cannot_be_measured_is_said(
    two_releases: Path, tmp_path: Path, release: str, window: str, why: str
) -> None:
    """A release from before drift was measured, and a service that is told not to; both answer as ever."""
    folder = FIXTURES / "release-format-1" if release == "fixture" else two_releases / release
    with serve(folder, tmp_path, {"VITRINE_DRIFT_WINDOW": window}) as service:
        photo = colours.photos(1, rng=np.random.default_rng(8))[0]
        service.http.post("/recommend", files={"image": photo}).raise_for_status()
        assert why in httpx.get(f"http://127.0.0.1:{service.metrics}/drift").json()["unmeasured"]
        assert math.isnan(value(service, "vitrine_drift", EMBEDDINGS))


def test_a_window_forgets_what_is_older() -> None:
    """By twelfths; and holds no more than those."""
    window = Window({"what": np.zeros(2, np.int64)}, seconds=60)
    for second in range(1000):
        window.add({"what": np.array([1, 0])}, now=second)
    assert 60 <= window.total(now=1000)["what"][0] <= 65
    assert window.total(now=1030)["what"][0] <= 35
    assert window.total(now=1100)["what"][0] == 0


def test_no_more_photos_wait_than_are_counted_in_a_second(colour_release: Path) -> None:
    """The rest is left out: what waits is bounded, and so is the work. A canary's answers are of another release."""
    recommender = Recommender(Release.open(colour_release))
    told: list[Drift] = []
    monitor = DriftMonitor(told.append, window=3600)
    monitor.follow(recommender.release)
    photo = colours.photos(1, rng=np.random.default_rng(9))[0]
    asked: list[tuple] = []
    recommender.recommend([Query(image=photo)], listener=lambda *each: asked.append(each))
    [(queries, vectors, answers)] = asked
    monitor.offer(list(queries) * 1000, list(vectors) * 1000, list(answers) * 1000)
    wait_until(lambda: bool(told[-1].photos))
    assert told[-1].photos <= 2 * WAITING
    monitor.close()
