"""A team's month: releases trained, gated, promoted, tried, refused and taken back."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.files import digest
from service.recommender.release import MANIFEST
from tests.processes import mlflow, serve, shadow_report, wait_until
from tests.shop import catalogues
from tests.team import QUICK, Team
from training.promotion.registry import Registry

pytestmark = pytest.mark.slow
# three epochs teach the encoder next to nothing, which differs each time
LIMITS = "[pictures]\nleast_share = 0.5\n[cost]\nmost_latency = 10\n[shadow]\nfewest = 50\nmost_latency = 10\n"
OVERLAY = 'images:\n  - name: vitrine\n    newTag: "1"\n'


def test_a_teams_month(boutique_folder: Path, tmp_path: Path) -> None:
    """Over a real MLflow server: what is promoted, tried, refused and taken back is what the history says."""
    first, today, spoilt = catalogues(boutique_folder, tmp_path / "month", pictures=True)
    moments: list[tuple[datetime, dict[str, int]]] = []

    def note(**live: int) -> None:
        time.sleep(0.02)
        moments.append((datetime.now(UTC), live))
        time.sleep(0.02)

    with mlflow(tmp_path / "mlflow") as uri:
        team = Team(tmp_path, MLFLOW_TRACKING_URI=uri)
        overlay = tmp_path / "kustomization.yaml"
        overlay.write_text(OVERLAY)
        limits = tmp_path / "limits.toml"
        limits.write_text(LIMITS)
        judged = ("--thresholds", limits)
        images = {
            number: ("--image", f"registry.example/vitrine:{number}-1a2b3c4d@sha256:{'a1' * 32}") for number in (1, 2)
        }
        note()
        assert team.run("train", first, *QUICK).strip().endswith("releases/1")
        team.run("promote", 1, "--to", "production", "--reason", "the first", "--catalogue", first, *judged, *images[1])
        note(production=1)

        team.run("train", today, *QUICK)
        verdict = json.loads(team.run("gate", 2, "--catalogue", today, "--json", *judged))
        assert verdict["passed"]
        assert verdict["against"] == 1
        team.run("promote", 2, "--to", "staging", "--reason", "a month more", *judged)
        note(production=1, staging=2)

        photos = sorted((today / "images").iterdir())
        tried = {"VITRINE_CANDIDATE": str(team.releases / "2"), "VITRINE_CANDIDATE_SHARE": "1"}
        with serve(team.releases / "1", tmp_path / "shadow", tried) as service:
            wait_until(lambda: service.http.get("/release").json()["candidate"]["state"] == "running", log=service.log)
            for number in range(60):
                sent = {"user_id": f"{number:05d}"}
                photo = {"image": photos[number].read_bytes()} if number % 2 else None
                assert service.http.post("/recommend", data=sent, files=photo).json()["release"] == "1"
            counted = 'vitrine_shadow_queries_total{outcome="answered"}'
            wait_until(lambda: service.metric(counted) == 60, log=service.log)
            seen = tmp_path / "shadow.json"
            done = shadow_report(service, seen, limits)
            assert done.returncode == 0, done.stdout + done.stderr
        team.run("promote", 2, "--to", "canary", "--reason", "it ranks alike", "--shadow-report", seen, *judged)
        note(production=1, staging=2, canary=2)

        canary = {**tried, "VITRINE_CANDIDATE_MODE": "canary", "VITRINE_CANDIDATE_SHARE": "0.1"}
        with serve(team.releases / "1", tmp_path / "canary", canary) as service:
            wait_until(lambda: service.http.get("/release").json()["candidate"]["state"] == "running", log=service.log)
            users = [f"{number:05d}" for number in range(300)]
            released = [service.http.post("/recommend", json={"user_id": user}).json()["release"] for user in users]
            assert 10 <= released.count("2") <= 55
            assert "2" not in {service.http.post("/recommend", json={}).json()["release"] for _ in range(20)}
            url = str(service.http.base_url)
            team.run("status", "--overlay", overlay, "--service", url)
            team.run(
                "promote",
                2,
                "--to",
                "production",
                "--reason",
                "a quiet week",
                "--write-overlay",
                overlay,
                *judged,
                *images[2],
            )
            assert '"2-1a2b3c4d@sha256:' in overlay.read_text()
            assert "drift" in team.run("status", "--overlay", overlay, "--service", url, code=1)
        note(production=2, staging=2, canary=2)

        team.run("train", spoilt, *QUICK)
        refused = team.run("gate", 3, "--catalogue", today, "--json", *judged, code=1)
        failed = {
            check["name"]
            for check in json.loads(refused[: refused.rindex("}") + 1])["checks"]
            if check["passed"] is False
        }
        assert {"warm.ndcg_at_10", "warm.recall_at_20"} <= failed
        said = team.run("promote", 3, "--to", "production", "--reason", "hurry", *judged, code=1)
        assert "warm.ndcg_at_10" in said

        tampered = shutil.copytree(team.releases / "3", tmp_path / "kept")
        (team.releases / "3" / "index.faiss").write_bytes(b"another index")
        for force in ((), ("--force",)):
            said = team.run("promote", 3, "--to", "production", "--reason", "hurry", *judged, *force, code=1)
            assert "changed: index.faiss" in said
        shutil.rmtree(team.releases / "3")
        team.run("pull", 3)  # as it was
        assert digest(team.releases / "3" / "index.faiss") == digest(Path(tampered) / "index.faiss")
        team.run("promote", 3, "--to", "staging", "--reason", "to look at it", "--force", *judged)
        note(production=2, staging=3, canary=2)

        team.run("rollback", "--reason", "complaints", "--write-overlay", overlay)
        assert '"1-1a2b3c4d@sha256:' in overlay.read_text()
        note(production=1, staging=3, canary=2)

        for moment, live in moments:
            rows = json.loads(team.run("history", "--as-of", moment.isoformat(), "--json"))
            assert {row["alias"]: row["release"] for row in rows} == live, moment
        rows = json.loads(team.run("history", "--json"))
        assert [row["kind"] for row in rows].count("rollback") == 1
        assert [row["release"] for row in rows if row["forced"]] == [3]
        other = Team(tmp_path / "another machine", MLFLOW_TRACKING_URI=uri)
        assert other.run("pull", 2).strip() == str(other.releases / "2")
        assert digest(other.releases / "2" / MANIFEST) == digest(team.releases / "2" / MANIFEST)
        with ThreadPoolExecutor(4) as pool:
            numbers = list(pool.map(lambda at: Registry(uri).reserve(tmp_path / f"packager {at}"), range(4)))
        assert sorted(numbers) == [4, 5, 6, 7]
        team.run("diff", 1, 2, "--out", tmp_path / "diff.html")
        assert (tmp_path / "diff.html").read_text().count("data:image/jpeg;base64,") > 100
