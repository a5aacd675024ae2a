"""What the load generator sends: whole HTTP requests with pictures or events, as bytes."""

import json
import random
from pathlib import Path
from urllib.parse import urlsplit

PICTURES = 64
USERS, EVENTS, BODIES = 2000, ("view", "view", "like", "cart", "purchase"), 512
BOUNDARY = "------------------------d74496d66958873e"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def read_pictures(folder: Path, *, count: int = PICTURES) -> list[bytes]:
    """The first `count` JPEGs of a folder, by name."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))[:count]
    if not found:
        raise SystemExit(f"--pictures {folder}: no JPEG in it")
    return [path.read_bytes() for path in found]


def multipart(picture: bytes, fields: dict[str, str]) -> bytes:
    """The body of `curl -F image=@photo.jpg -F name=value ...`."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode()
        + picture
    ]
    for name, value in fields.items():
        parts.append(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode())
    return b"\r\n".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


def request_bytes(url: str, picture: bytes, fields: dict[str, str]) -> bytes:
    """All that curl would write for it."""
    return posted(url, multipart(picture, fields), CONTENT_TYPE)


def event_requests(url: str, items: list[str], *, events: int, seed: int) -> list[bytes]:
    """Requests with so many events each, of many users; items: ids that they are about."""
    rng = random.Random(seed)

    def one() -> dict[str, str]:
        return {"user_id": f"load-{rng.randrange(USERS)}", "item_id": rng.choice(items), "event": rng.choice(EVENTS)}

    bodies = [one() if events == 1 else {"events": [one() for _ in range(events)]} for _ in range(BODIES)]
    return [posted(url, json.dumps(body).encode(), "application/json") for body in bodies]


def posted(url: str, body: bytes, content_type: str) -> bytes:
    """A POST as curl writes it."""
    at = urlsplit(url)
    head = (
        f"POST {at.path or '/'} HTTP/1.1\r\nHost: {at.netloc}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n"
        f"Content-Length: {len(body)}\r\nContent-Type: {content_type}\r\n\r\n"
    )
    return head.encode() + body
