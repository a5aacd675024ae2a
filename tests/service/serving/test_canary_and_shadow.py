"""A candidate beside production: whom it answers, what is measured of it, and that it harms nobody."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc

from service.recommender.agreement import rank_correlation
from service.recommender.pipeline import Recommender
from service.recommender.query import Query
from service.recommender.release import Release
from service.serving.canary import is_drawn
from service.serving.candidate import Plan
from service.serving.guardrails import Bounds
from tests.processes import HOME, Service, serve, shadow_report, wait_until
from tests.quick import options
from tests.shop import Shop
from training.pipeline import train

USERS = [f"{number:05d}" for number in range(120)]


def plan(share: float, mode: str = "canary") -> Plan:
    return Plan(Path("releases/2"), mode, share, "a key of this shop", Bounds())


def settings(candidate: Path, mode: str, share: float = 1.0, **others: object) -> dict[str, str]:
    said = {"candidate": candidate, "candidate_mode": mode, "candidate_share": share, **others}
    return {f"VITRINE_{name.upper()}": str(value) for name, value in said.items()}


def state(service: Service) -> dict:
    return service.http.get("/release").json()["candidate"]


def wait_for(service: Service, wanted: str) -> None:
    wait_until(lambda: state(service)["state"] == wanted, log=service.log)


def recommend(service: Service, **query: object) -> httpx.Response:
    return service.http.post("/recommend", json=query)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_canary_answers_its_share_of_the_users(share: float) -> None:
    """Within one point over ten thousand."""
    drawn = [is_drawn(f"user {number}", "2", plan(share)) for number in range(10_000)]
    assert abs(np.mean(drawn) - share) < 0.01


def test_a_larger_share_moves_nobody_back() -> None:
    """Who is drawn for a tenth is drawn for every share above."""
    users = [f"user {number}" for number in range(10_000)]
    shares = [0.0, 0.05, 0.1, 0.3, 0.8, 1.0]
    drawn = [{user for user in users if is_drawn(user, "2", plan(share))} for share in shares]
    assert all(smaller <= larger for smaller, larger in pairwise(drawn))
    assert drawn[0] == set()
    assert drawn[-1] == set(users)


def test_every_process_with_the_key_draws_the_same_users() -> None:
    """Another key, or another candidate, draws others; an anonymous request is never drawn."""
    ours = [is_drawn(str(number), "2", plan(0.2)) for number in range(1000)]
    script = (
        "import json; from pathlib import Path; "
        "from service.serving.canary import *; from service.serving.guardrails import Bounds; "
        "p = Plan(Path('x'), 'canary', 0.2, 'a key of this shop', Bounds()); "
        "print(json.dumps([is_drawn(str(n), '2', p) for n in range(1000)]))"
    )
    other = subprocess.run([sys.executable, "-c", script], cwd=HOME, capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == ours
    assert [is_drawn(str(number), "3", plan(0.2)) for number in range(1000)] != ours
    assert not is_drawn(None, "2", plan(1.0))


@pytest.mark.slow
def test_users_stay_with_their_release_over_every_protocol_and_after_a_restart(releases: Path, tmp_path: Path) -> None:
    """The reply names it; anonymous requests and look-alikes stay on production."""
    seen = []
    for turn, share in enumerate((0.3, 0.3, 0.6)):
        with serve(releases / "1", tmp_path / str(turn), settings(releases / "2", "canary", share)) as service:
            wait_for(service, "running")
            seen.append({user for user in USERS if recommend(service, user_id=user).json()["release"] == "2"})
            assert recommend(service).json()["release"] == "1"
            assert service.http.post("/similar", json={"item_id": "0004"}).json()["release"] == "1"
            answered = service.metric('vitrine_canary_requests_total{outcome="answered"}')
            assert answered == len(seen[-1])
            with triton_grpc.InferenceServerClient(service.grpc) as client:
                user = triton_grpc.InferInput("USER_ID", [len(USERS[:32])], "BYTES")
                user.set_data_from_numpy(np.array([each.encode() for each in USERS[:32]], object))
                said = client.infer("recommender", [user]).as_numpy("RELEASE").tolist()
            assert said == [b"2" if user in seen[-1] else b"1" for user in USERS[:32]]
    assert seen[0] == seen[1]
    assert seen[0] < seen[2]
    assert 15 < len(seen[0]) < 60


def test_where_the_canary_fails_production_answers(
    release_folder: Path, trained_shop: Shop, tmp_path: Path, photo: bytes
) -> None:
    """A candidate without pictures refuses photos. Past the bound it is taken out: metric, log and /release say so."""
    said = settings(trained_shop.releases / "2", "canary", candidate_errors=0.2, candidate_fewest=10)
    with serve(release_folder, tmp_path, said) as service:
        wait_for(service, "running")
        assert recommend(service, user_id="00003").status_code == 200
        answers = [
            service.http.post("/recommend", data={"user_id": user}, files={"image": photo}) for user in USERS[:20]
        ]
        assert {answer.status_code for answer in answers} == {200}
        assert state(service)["state"] == "stopped"
        assert "queries failed" in state(service)["why"]
        assert service.metric("vitrine_candidate_stops_total") == 1
        assert service.metric('vitrine_canary_requests_total{outcome="failed"}') >= 9
        assert "taken out" in service.log.read_text()
        # what production cannot answer either is nobody's fault
        assert recommend(service, user_id="00003", filter={"no such column": [1]}).status_code == 422


def test_a_canary_that_became_production_is_one_no_more(releases: Path, tmp_path: Path) -> None:
    """What it answers then is production's: no request is counted as the canary's, and no bound is looked at."""
    said = settings(releases / "2", "canary") | {"VITRINE_ADMIN_KEY": "an admin's secret"}
    with serve(releases / "1", tmp_path, said) as service:
        wait_for(service, "running")
        headers = {"X-Admin-Key": "an admin's secret"}
        assert service.http.post("/admin/release", json={"release": "2"}, headers=headers).status_code == 200
        assert "in production itself" in state(service)["why"]
        before = service.metric('vitrine_canary_requests_total{outcome="answered"}')
        for user in (*USERS[:20], None):
            assert recommend(service, user_id=user).json()["release"] == "2"
        assert service.metric('vitrine_canary_requests_total{outcome="answered"}') == before


@pytest.mark.parametrize("mode", ["shadow", "canary"])
def test_a_candidate_that_cannot_be_served_harms_nobody(releases: Path, tmp_path: Path, mode: str) -> None:
    """Damaged: production is ready and answers, and says why there is no candidate."""
    with serve(releases / "1", tmp_path, settings(releases / "3", mode)) as service:
        wait_for(service, "stopped")
        assert "items.parquet" in state(service)["why"]
        assert recommend(service, user_id=USERS[0]).json()["release"] == "1"


def test_a_shadow_is_compared_on_every_query_and_answers_none(
    releases: Path, tmp_path: Path, photo: bytes, boutique_folder: Path
) -> None:
    """Figures are those of both releases asked directly; a photo's vector is computed once."""
    both = [Recommender(Release.open(releases / number)) for number in "12"]
    queries = [Query(user_id=user) for user in USERS[:20]] + [Query(image=photo, user_id="00003")]
    lists = [[[item.item_id for item in each.recommend([query])[0].items] for each in both] for query in queries]
    overlap = sum(len(set(a) & set(b)) / 10 for a, b in lists)
    correlation = sum(rank_correlation(b, a) for a, b in lists)
    assert 0 < overlap < len(queries)
    with serve(releases / "1", tmp_path, settings(releases / "2", "shadow")) as service:
        wait_for(service, "running")
        for query in queries[:-1]:
            assert recommend(service, user_id=query.user_id).json()["release"] == "1"
        assert "candidate 2 is asked 100% of the queries in the shadow, and answers none" in service.log.read_text()
        service.http.post("/recommend", data={"user_id": "00003"}, files={"image": photo})
        answered = 'vitrine_shadow_queries_total{outcome="answered"}'
        wait_until(lambda: service.metric(answered) == len(queries), log=service.log)
        assert service.metric("vitrine_shadow_overlap_sum") == pytest.approx(overlap)
        assert service.metric("vitrine_shadow_rank_correlation_sum") == pytest.approx(correlation)
        for side in ("candidate", "production"):
            assert 0 < service.metric(f'vitrine_shadow_coverage{{side="{side}"}}') <= 1
            assert service.metric(f'vitrine_shadow_seconds_count{{side="{side}"}}') == len(queries) // 8
        done = report(
            service, tmp_path / "shadow.json", "[shadow]\nfewest = 20\nmost_latency = 100\nleast_coverage_share = 0\n"
        )
        assert done.returncode == 0, done.stdout
        said = json.loads((tmp_path / "shadow.json").read_text())
        assert (said["release"], said["production"], said["queries"], said["passed"]) == (2, 1, len(queries), True)
        strict = report(service, tmp_path / "strict.json", "[shadow]\nfewest = 20\nleast_overlap = 0.99\n")
        assert strict.returncode == 1
        assert "failed" in strict.stdout


def report(service: Service, out: Path, thresholds: str) -> subprocess.CompletedProcess[str]:
    """`vitrine shadow-report` of it, under these thresholds."""
    limits = out.with_suffix(".toml")
    limits.write_text(thresholds)
    return shadow_report(service, out, limits)


@pytest.mark.slow
def test_another_encoder_sees_the_photo_itself(
    release_folder: Path, boutique_folder: Path, tmp_path: Path, photo: bytes
) -> None:
    """Vectors of one encoder mean nothing to another."""
    asked = options(boutique_folder, tmp_path / "smaller")
    smaller = train(replace(asked, encoder=replace(asked.encoder, dim=16, epochs=1)))
    assert smaller is not None
    both = [Recommender(Release.open(path)) for path in (release_folder, smaller)]
    a, b = ([item.item_id for item in each.recommend([Query(image=photo)])[0].items] for each in both)
    with serve(release_folder, tmp_path, settings(smaller, "shadow")) as service:
        wait_for(service, "running")
        assert service.http.post("/recommend", files={"image": photo}).status_code == 200
        wait_until(lambda: service.metric("vitrine_shadow_overlap_count") == 1, log=service.log)
        assert service.metric("vitrine_shadow_overlap_sum") == pytest.approx(len(set(a) & set(b)) / 10)


def test_a_shadow_that_ranks_too_differently_is_taken_out(releases: Path, tmp_path: Path) -> None:
    """The bound is on the mean overlap of the latest queries."""
    said = settings(releases / "2", "shadow", candidate_overlap=0.99, candidate_fewest=10)
    with serve(releases / "1", tmp_path, said) as service:
        wait_for(service, "running")
        for user in USERS[:20]:
            recommend(service, user_id=user)
        wait_for(service, "stopped")
        assert "of production's items" in state(service)["why"]
        assert recommend(service, user_id=USERS[0]).status_code == 200


def test_the_end_of_the_shadow_process_is_not_the_end_of_anything(releases: Path, tmp_path: Path) -> None:
    """kill -9: production answers, the process is started again; again and again: the candidate is taken out."""
    with serve(releases / "1", tmp_path, settings(releases / "2", "shadow", candidate_errors=1)) as service:
        wait_for(service, "running")
        answered = 'vitrine_shadow_queries_total{outcome="answered"}'

        def answers_more_than(service: Service, before: float) -> bool:
            return recommend(service, user_id="00001").is_success and service.metric(answered) > before

        for kills in range(1, 5):
            wait_until(lambda: shadow_of(service) is not None, log=service.log)
            found = shadow_of(service)
            assert found is not None
            os.kill(found, signal.SIGKILL)
            before = service.metric(answered)
            assert recommend(service, user_id=USERS[0]).json()["release"] == "1"
            if kills < 4:
                wait_until(partial(answers_more_than, service, before))
        recommend(service, user_id=USERS[0])
        wait_for(service, "stopped")
        assert recommend(service, user_id=USERS[0]).json()["release"] == "1"


def shadow_of(service: Service) -> int | None:
    """The process id of its shadow."""
    children = psutil.Process(service.process.pid).children(recursive=True)
    return next((child.pid for child in children if "service.serving.shadow_worker" in child.cmdline()), None)


def test_rank_correlation_is_kendalls_tau_of_lists_that_need_not_share_items() -> None:
    """1 for the same, -1 for nothing in common, between for the rest; worked out by hand."""
    assert rank_correlation("abc", "abc") == 1
    assert rank_correlation("abc", "xyz") == -1
    # of the four pairs of {a, b, x} that count: a before b in one, b unknown to the other ...
    assert rank_correlation("ab", "ba") == pytest.approx(1 - 2 * 1 / 5)
    assert rank_correlation("ab", "ax") == pytest.approx(1 - 2 * 1 / 5)
    assert rank_correlation("ab", "xa") == pytest.approx(1 - 2 * 2 / 5)
    assert rank_correlation("", "") == 1
    assert rank_correlation("a", "") == -1
