"""One client must not take a pod down: the largest pictures, and bodies that never end."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import cv2
import httpx
import numpy as np

from tests.container.pods import Pod, memory_group, memory_limit, memory_used
from tests.container.test_pods import metric

LARGEST, UNFINISHED = 64, 200


def test_an_attack_leaves_a_pod_within_its_limit_and_answering(first: Pod, photo: bytes) -> None:
    """64 pictures that take the most memory to decode, padded to the longest body, beside 200 uploads that never end:
    the pod stays under its limit, never restarts, and answers others all the while."""
    side = int(34.5e6**0.5)
    bomb = cv2.imencode(".png", np.zeros((side, side, 4), np.uint16))[1].tobytes()
    bomb += b"\0" * (19 * 2**20 - len(bomb))
    host, port = first.http.removeprefix("http://").split(":")
    head = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20000000\r\n\r\n"
    began, group, held = first.state()["StartedAt"], memory_group(first), [0]

    def attack(_: int) -> int:
        try:
            return httpx.post(f"{first.http}/embed", files={"image": bomb}, timeout=120).status_code
        except httpx.TransportError:
            return 0

    with ExitStack() as stack, ThreadPoolExecutor(LARGEST) as pool:
        for _ in range(UNFINISHED):
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
            connection.sendall(head + b" " * 500_000)
        attacks = pool.map(attack, range(LARGEST))
        answered, until = [], time.monotonic() + 15
        while time.monotonic() < until:
            response = httpx.post(f"{first.http}/recommend", files={"image": photo}, timeout=60)
            answered.append(response.status_code)
            held.append(memory_used(group))
            time.sleep(0.1)
        statuses = list(attacks)
    others = f"others: {answered.count(200)} of {len(answered)}; attackers: {sorted(set(statuses))}"
    print(f"{others}; at most {max(held) / 1e6:.0f} of {memory_limit(group) / 1e6:.0f} MB")
    assert first.state()["StartedAt"] == began
    assert first.state()["Running"]
    assert not first.state()["OOMKilled"]
    assert max(held) < memory_limit(group)
    assert answered.count(200) >= 0.8 * len(answered)
    assert set(statuses) <= {0, 200, 408, 429, 503}
    assert metric(first, "vitrine_upload_bytes") <= 64 * 2**20
