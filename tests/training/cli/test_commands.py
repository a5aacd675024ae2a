"""The command line, as a person and as a script would use it."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer.main

from tests.processes import HOME, free_port
from training.__main__ import INTERRUPTED
from training.cli.main import app

VERBS = (
    "demo-data", "check", "tune", "train", "evaluate", "segments", "recommend", "recommend-all", "score", "serve",
    "install-encoder", "lint-repository", "prune-repository", "export-tensorrt", "pull", "gate", "promote", "rollback",
    "history", "status", "diff", "shadow-report", "drift", "bento", "image", "export-store", "erase",
)  # fmt: skip

PORTS = ("--port", str(free_port()), "--grpc-port", "0", "--metrics-port", "0")  # the usual ones may be taken


def vitrine(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """What it says; the exit code must be this, and no traceback comes with it."""
    command = [sys.executable, "-m", "training", *map(str, arguments)]
    wide = {**os.environ, "COLUMNS": "200"}  # whatever terminal the tests run in
    done = subprocess.run(command, cwd=HOME, env=wide, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    """--help ends with a command that can be copied."""
    assert f"vitrine {verb}" in vitrine(verb, "--help").stdout


def test_check_says_what_is_usable(boutique_folder: Path) -> None:
    """Counts, columns and their kinds; --json for scripts."""
    summary = json.loads(vitrine("check", boutique_folder, "--json").stdout)
    assert (summary["items"], summary["pictures"], summary["users"]) == (144, 144, 200)
    assert summary["unusable"] == []
    assert "every row is usable" in vitrine("check", boutique_folder).stdout


def test_check_fails_past_the_share(tmp_path: Path) -> None:
    """Exit code 1, the reasons listed, the error on one line."""
    (tmp_path / "items.csv").write_text("item_id,image\n1,images/gone.jpg\n2,\n")
    done = vitrine("check", tmp_path, code=1)
    assert "1 x picture not found" in done.stdout
    assert "row 1: images/gone.jpg" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("error: 1 of 2 rows of items")


def test_recommend_prints_the_result_with_its_reasons(release_folder: Path, boutique_folder: Path) -> None:
    """A table for people, JSON for scripts."""
    photo = boutique_folder / "images" / "0004.jpg"
    arguments = ("recommend", release_folder, "--image", photo, "--user", "00007", "-k", "3")
    answer = json.loads(vitrine(*arguments, "--json").stdout)
    assert (answer["tier"], len(answer["items"])) == ("ranked", 3)
    assert "tier ranked" in vitrine(*arguments).stdout


def test_score_writes_both_scores_for_each_pair(release_folder: Path, tmp_path: Path) -> None:
    """factor_score and score beside user_id and item_id; an unknown user has no factor score."""
    (tmp_path / "pairs.csv").write_text("user_id,item_id\n00007,0004\nnobody,0004\n00007,0001\n")
    vitrine("score", release_folder, "--pairs", tmp_path / "pairs.csv", "--out", tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["user_id"], row["item_id"]) for row in rows] == [
        ("00007", "0004"),
        ("nobody", "0004"),
        ("00007", "0001"),
    ]
    assert [row["factor_score"] == "" for row in rows] == [False, True, False]
    assert all(row["score"] for row in rows)


@pytest.mark.slow
def test_evaluate_writes_metrics_and_a_page(release_folder: Path, boutique_folder: Path, tmp_path: Path) -> None:
    """metrics.json with plain numbers, every baseline, the best possible, stage times; report.html with pictures."""
    arguments = ("--catalogue", boutique_folder, "--out", tmp_path / "out", "--exclude-same", "colour")
    vitrine("evaluate", release_folder, *arguments)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 <= metrics["retrieval"]["precision_at_10"] <= 1
    assert len(metrics["retrieval"]["precision_at_10_interval"]) == 2
    assert "precision_at_10_excluding_same_colour" in metrics["retrieval"]
    assert set(metrics["ranking"]["baselines"]) == {
        "popularity", "transitions", "item_knn", "user_knn", "picture_only", "colour_histogram", "factors_alone",
        "factors_without_features",
    }  # fmt: skip
    assert metrics["ranking"]["best_possible"]["ndcg_at_10"] >= metrics["ranking"]["ndcg_at_10"]
    assert {"decode_ms", "encode_ms", "search_ms", "rank_ms", "whole_ms"} <= set(metrics["stages"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") > 50
    for name in ("popularity", "item knn", "picture only", "colour histogram", "best possible"):
        assert f"<td>{name}</td>" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("recommend", "no/such/release"), "is not a release"),
        (("serve", "no/such/release", *PORTS), "is not a release"),
        (("train", "no/such/catalogue"), "is not a folder"),
        (("check", "no/such/catalogue"), "is not a folder"),
        (("train", "demo", "--only", "magic"), "no such stage"),
        (("demo-data", "tests"), "exists already"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(arguments: tuple[str, ...], message: str) -> None:
    """No traceback: what was expected, what came."""
    last = vitrine(*arguments, code=1).stderr.splitlines()[-1]
    assert last.startswith("this cannot be served: " if arguments[0] == "serve" else "error: ")
    assert message in last


def test_a_port_that_is_taken_is_said_before_the_server_starts(release_folder: Path) -> None:
    """Of HTTP and of gRPC."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for options in (("--port", port), ("--port", free_port(), "--grpc-port", port)):
            said = vitrine("serve", release_folder, *map(str, options), code=1).stderr
            assert f"{options[-2]} {port}: Address already in use on 127.0.0.1" in said
            assert said.startswith("error: ")


def test_wrong_usage_is_exit_code_2() -> None:
    """As other commands do."""
    assert "Missing argument" in vitrine("recommend", code=2).stderr


def test_segments_are_printed_and_pictured(release_folder: Path, tmp_path: Path) -> None:
    """A table for people, JSON for scripts, a page of pictures; every user belongs to one."""
    page = tmp_path / "segments.html"
    found = json.loads(vitrine("segments", release_folder, "--out", page, "--json").stdout)
    assert sum(segment["shoppers"] for segment in found) <= 200
    assert [segment["shoppers"] for segment in found] == sorted((s["shoppers"] for s in found), reverse=True)
    assert page.read_text().count("data:image/jpeg") == sum(len(segment["items"]) for segment in found)
    assert "Segment" in page.read_text()
    assert "typical items" in vitrine("segments", release_folder).stdout


def without_pictures(boutique_folder: Path, folder: Path) -> Path:
    """The boutique's tables alone, with titles and attributes."""
    folder.mkdir()
    with (boutique_folder / "items.csv").open() as file:
        rows = [{**row, "image": ""} for row in csv.DictReader(file)]
    with (folder / "items.csv").open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for name in ("interactions.csv", "users.csv"):
        (folder / name).write_text((boutique_folder / name).read_text())
    return folder


@pytest.mark.slow
def test_what_tune_finds_train_uses(boutique_folder: Path, tmp_path: Path) -> None:
    """From tuned.json, but for what is given by hand."""
    shop, releases = without_pictures(boutique_folder, tmp_path / "shop"), tmp_path / "releases"
    tuned = json.loads(vitrine("tune", shop, "--releases", releases, "--trials", "2", "--json").stdout)
    assert tuned["ndcg_at_20"] >= tuned["before"] > 0
    done = vitrine("train", shop, "--releases", releases, "--factors", "8", "--confidence", "purchase=5")
    assert "parameters from" in done.stderr
    stored = json.loads((releases / "1" / "manifest.json").read_text())["training"]["ranker"]
    assert stored["regularisation"] == tuned["parameters"]["regularisation"]
    assert (stored["factors"], stored["confidences"]["purchase"]) == (8, 5)


@pytest.mark.slow
def test_the_other_protocols_train_anew(boutique_folder: Path, tmp_path: Path) -> None:
    """leave-one-out and cold-items, and nothing held out is known to them."""
    shop, releases = without_pictures(boutique_folder, tmp_path / "shop"), tmp_path / "releases"
    vitrine("train", shop, "--releases", releases, "--factors", "8", "--sweeps", "3")
    for protocol in ("leave-one-out", "cold-items"):
        out = tmp_path / protocol
        arguments = ("--catalogue", shop, "--out", out, "--retrain", protocol, "--negatives", "20")
        vitrine("evaluate", releases / "1", *arguments)
        ranking = json.loads((out / "metrics.json").read_text())["ranking"]
        assert ranking["protocol"] == protocol
        if protocol == "leave-one-out":
            assert 0 < ranking["sampled_20"]["hit_rate_at_10"] <= 1
        else:
            assert ranking["cold_items"]["auc"] > 0.55
            assert ranking["cold_items"]["baselines"]["factors_without_features"]["auc"] == pytest.approx(0.5)


@pytest.mark.parametrize("text", ["view", "view=x", "look=1", "view=-1"])
def test_confidences_are_checked(boutique_folder: Path, tmp_path: Path, text: str) -> None:
    """An event that is not one, or no number."""
    done = vitrine("train", boutique_folder, "--releases", tmp_path, "--confidence", text, code=1)
    assert "expected event=number pairs" in done.stderr


@pytest.mark.parametrize("after", [0.4, 0.9, 1.6, 2.5])
def test_ctrl_c_leaves_one_line(boutique_folder: Path, tmp_path: Path, after: float) -> None:
    """Whenever it comes: while libraries load, while pictures are decoded, in training."""
    command = [sys.executable, "-m", "training", "train", boutique_folder, "--releases", tmp_path, "--weights", "none"]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run where it is ignored
    with subprocess.Popen(list(map(str, command)), cwd=HOME, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, handler)
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in said
    assert said.count("interrupted") == 1


def test_pairs_that_cannot_be_scored_are_counted_and_the_others_are(release_folder: Path, tmp_path: Path) -> None:
    """Latin-1, an item that is not known, an empty id; a file without rows is one line."""
    pairs, scored = tmp_path / "pairs.csv", tmp_path / "scored.csv"
    pairs.write_bytes("user_id,item_id\n00007,0004\n00007,none\nJosé,0004\n,0004\n".encode("latin-1"))
    summary = json.loads(vitrine("score", release_folder, "--pairs", pairs, "--out", scored, "--json").stdout)
    assert (summary["pairs"], summary["scored"], summary["not_scored"]) == (4, 2, [2, 4])
    with scored.open() as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["score"]) for row in rows] == [True, False, True, False]
    assert rows[2]["user_id"] == "José"
    pairs.write_text("")
    refused = vitrine("score", release_folder, "--pairs", pairs, "--out", scored, code=1)
    [line] = refused.stderr.strip().splitlines()
    assert line == "error: pairs.csv: pairs.csv is empty; expected a header with user_id, item_id"


def test_text_of_users_is_never_markup(tmp_path: Path) -> None:
    """Titles, columns and events may hold what looks like it."""
    (tmp_path / "items.csv").write_text("item_id,[bold]x[/],title\n1,[/sale],[red]\n2,:smile:,b\n")
    (tmp_path / "interactions.csv").write_text("user_id,item_id,event,timestamp\nu,1,[/stare],1700000000\n")
    said = vitrine("check", tmp_path, code=1)
    assert "[bold]x[/] (category)" in said.stdout
    assert "unknown event '[/stare]'" in said.stdout


@pytest.mark.parametrize(("arguments", "port"), [([], 4001), (["--grpc-port", "5001"], 5001)])
def test_serve_takes_ports_from_the_environment(
    arguments: list[str], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its own options do not say otherwise."""
    monkeypatch.setenv("VITRINE_GRPC_PORT", "4001")
    group = typer.main.get_command(app)
    context = group.commands["serve"].make_context("serve", ["releases/1", *arguments])  # type: ignore[attr-defined]
    assert context.params["grpc_port"] == port


def test_the_demo_is_drawn_into_folders_that_are_not_there_yet(tmp_path: Path) -> None:
    """It makes them; and nothing half-written stays beside it."""
    vitrine("demo-data", tmp_path / "new" / "shop", "--items", "24", "--shoppers", "10")
    assert (tmp_path / "new" / "shop" / "items.csv").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["shop"]
