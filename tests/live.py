"""What tests ask of a service that keeps changes and events."""

import json
from typing import Any

import httpx

CATALOGUE, ADMIN = {"X-Catalogue-Key": "catalogue1"}, {"X-Admin-Key": "adminadmin"}


def keeping(store: str) -> dict[str, str]:
    """Settings of a service with this store, and with every key."""
    return {
        "VITRINE_STORE": store,
        "VITRINE_CATALOGUE_KEY": CATALOGUE["X-Catalogue-Key"],
        "VITRINE_ADMIN_KEY": ADMIN["X-Admin-Key"],
    }


def put(client: httpx.Client, item_id: str, attributes: Any = None, *pictures: bytes, **headers: str) -> httpx.Response:
    """PUT /items/{item_id}, with pictures as a form."""
    headers = {**CATALOGUE, **headers}
    if not pictures:
        return client.put(f"/items/{item_id}", json=attributes or {}, headers=headers)
    files: list[Any] = [("image", ("photo.jpg", picture, "image/jpeg")) for picture in pictures]
    if attributes is not None:
        files.append(("attributes", (None, json.dumps(attributes))))
    return client.put(f"/items/{item_id}", files=files, headers=headers)


def items_of(response: httpx.Response) -> list[str]:
    """The ids of an answer, in order."""
    assert response.status_code == 200, response.text
    return [item["item_id"] for item in response.json()["items"]]


def export(client: httpx.Client, user_id: str) -> dict[str, Any]:
    """What is held of a user."""
    found: dict[str, Any] = client.post("/users/export", json={"user_id": user_id}, headers=ADMIN).json()
    return found


def assert_problem(response: httpx.Response, status: int, said: str, field: str | None = None) -> None:
    """An error says what is wrong, and with what."""
    assert response.status_code == status, response.text
    body = response.json()
    assert said in body["detail"], body
    assert body.get("field") == field, body
    assert len(body["detail"]) < 600
