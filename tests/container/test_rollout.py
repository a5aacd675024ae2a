"""An operator's drill: a release that is slow replaces another, is seen, and is taken back; nobody who asks notices."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.container.load import Balancer, OpenLoop
from tests.container.pods import IMAGE, Pod, overlay_of, pod, podman, render
from tests.k8s.prometheus import STEP, grafana, play, queries, series
from tests.team import Team
from training.promotion import overlays

BESIDE = 30  # seconds in which both releases answer
PRE_STOP = 2  # seconds in place of preStop's 5


@contextmanager
def recorded(pods: list[Pod]) -> Iterator[dict[str, list[str]]]:
    """What each pod's /metrics says, once a second; each stands for a scrape of Prometheus, a quarter of a minute."""
    pages: dict[str, list[str]] = {each.name: [] for each in pods}
    ending = threading.Event()

    def scrape() -> None:
        while not ending.wait(1):
            for each in pods:
                try:
                    pages[each.name].append(httpx.get(f"{each.metrics}/metrics", timeout=5).text)
                except httpx.TransportError:  # not there yet, or no more
                    pages[each.name].append("")

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield pages
    finally:
        ending.set()
        thread.join()


def replace(old: Pod, new: Pod, *, beside: float) -> None:
    """As a rollout with maxUnavailable 0 does: the old one is told to end once the new one is ready."""
    new.play()
    new.wait()
    time.sleep(beside + PRE_STOP)
    old.terminate()
    deadline = time.monotonic() + 30
    while old.state()["Running"] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert old.state()["ExitCode"] == 0


def test_a_slow_release_is_seen_and_taken_back_and_no_request_fails(
    team: Team, first: Pod, k8s: Path, photo: bytes, tmp_path: Path
) -> None:
    """1 is replaced by 2 under load, the alert fires on what was recorded, `vitrine rollback` writes 1 into the
    overlay, and 2 is replaced by 1."""
    overlay = overlay_of(k8s, 1) / "kustomization.yaml"
    reason = ("--catalogue", team.folder / "boutique", "--force", "--write-overlay", overlay)
    for number, why in ((1, "the first"), (2, "a larger network")):
        image = f"{IMAGE}:{number}@{podman('image', 'inspect', '--format', '{{.Digest}}', f'{IMAGE}:{number}')}"
        team.run("promote", number, "--to", "production", "--reason", why, *reason, "--image", image)
    assert overlays.read(overlay) == 2
    slow = pod(render(overlay.parent), "vitrine", "vitrine-2")
    team.run("rollback", "--reason", "slow", "--write-overlay", overlay)  # the one command; applied further down
    assert overlays.read(overlay) == 1
    again = pod(render(overlay.parent), "vitrine", "vitrine-1-again")
    for each in (slow, again):
        each.remove()
    try:
        with (
            Balancer(tmp_path / "balancer", [first, slow, again]) as at,
            OpenLoop(at.url, photo, rate=6, kept=0) as load,
            recorded([first, slow]) as pages,
        ):
            time.sleep(3)
            replace(first, slow, beside=BESIDE)
            time.sleep(3)
            replace(slow, again, beside=0)
            time.sleep(3)
    finally:
        for each in (slow, again):
            each.remove()
    assert not load.failed
    assert len(load.answers) > 6 * BESIDE
    answered = [answer.release for answer in load.answers]
    assert (answered[0], answered[-1]) == ("1", "1")
    assert answered.count("2") > BESIDE

    both = next(at for at, page in enumerate(pages[slow.name]) if page) + BESIDE - 1
    fires = {
        "expr": 'count(ALERTS{alertname="VitrineReleaseSlower", alertstate="firing", release="2"})',
        "eval_time": f"{STEP * both}s", "exp_samples": [{"labels": "{}", "value": 1}],
    }  # fmt: skip
    panel = grafana(queries()["Is one release slower? A"])
    shows = {
        "expr": f'({panel}) > on () group_left () 1.5 * min({panel})', "eval_time": f"{STEP * both}s",
        "exp_samples": [{"labels": '{release="2"}', "value": 1}],
    }  # fmt: skip
    shows["expr"] = f"count by (release) ({shows['expr']})"
    given = series(pages)
    said = play(tmp_path, [{"interval": f"{STEP}s", "input_series": given, "promql_expr_test": [fires, shows]}])
    assert not said, said
    history = json.loads(team.run("history", "--json"))
    assert [row["kind"] for row in history[-2:]] in (["promote", "rollback"], ["rollback", "promote"])
