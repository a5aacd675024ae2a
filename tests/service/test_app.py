"""A real server process: the wire format, the documents, and the world's worst requests."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bentoml
import httpx
import psutil
import pytest

from tests import hostile
from tests.processes import Service, serve
from tests.shop import Shop


def recommend(server: httpx.Client, photo: bytes | None = None, **fields: object) -> httpx.Response:
    """Post a photo and fields as a form, as curl -F would."""
    files = {"image": ("photo.jpg", photo, "image/jpeg")} if photo is not None else None
    data = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    return server.post("/recommend", data=data, files=files)


def assert_problem(response: httpx.Response, status: int) -> None:
    """The documented body of an error."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert {"type", "title", "status", "detail", "trace_id"} == set(body) - {"field"}
    assert body["status"] == status
    assert 10 < len(body["detail"]) < 1000


def test_a_photo_and_a_user_give_ranked_items(server: httpx.Client, photo: bytes) -> None:
    """The reply has the documented shape."""
    body = recommend(server, photo, user_id="00007", k=3).json()
    assert body["release"] == "1"
    assert body["tier"] == "ranked"
    assert len(body["items"]) == 3
    assert set(body["items"][0]) == {"item_id", "score", "terms", "because", "title", "category", "attributes"}
    assert set(body["query"]) == {"category", "confidence", "in_catalogue"}


def test_a_photo_comes_back_as_an_event_that_can_be_sent_again(server: httpx.Client, photo: bytes) -> None:
    """With remember the reply holds the vector; sent along later it counts as the user's own picture."""
    event = recommend(server, photo, remember=True).json()["query"]["event"]
    body = server.post("/recommend", json={"events": [event]}).json()
    assert body["tier"] == "taste"
    assert "own_likeness" in body["items"][0]["terms"]
    for wrong in ({"vector": event["vector"][:5]}, {"encoder": "0" * 64}, {"encoder": None}):
        assert_problem(server.post("/recommend", json={"events": [{**event, **wrong}]}), 422)
    events = {"name": "EVENTS", "datatype": "BYTES", "shape": [1], "data": [json.dumps([event])]}
    asked = server.post("/v2/models/recommender/infer", json={"inputs": [events]}).json()
    assert {output["name"]: output["data"] for output in asked["outputs"]}["TIER"] == ["taste"]
    events["data"] = [json.dumps([{**event, "encoder": "0" * 64}])]
    refused = server.post("/v2/models/recommender/infer", json={"inputs": [events]})
    assert refused.status_code == 422
    assert "cannot be compared" in refused.text
    assert_problem(server.post("/recommend", json={"events": [{**event, "item_id": "0004"}]}), 422)
    assert_problem(server.post("/recommend", json={"remember": True}), 422)


def test_items_of_events_that_are_not_known_are_named(server: httpx.Client) -> None:
    """They count for nothing, and the reply says which they were."""
    events = [{"item_id": "0004"}, {"item_id": "gone"}, {"item_id": "gone"}]
    body = server.post("/recommend", json={"events": events}).json()
    assert body["unknown_items"] == ["gone"]
    assert server.post("/recommend", json={"events": [{"item_id": "gone"}]}).json()["tier"] == "popular"


@pytest.mark.parametrize("user_id", ["00007", '"00007"'])
def test_an_all_digit_user_id_is_a_string_in_every_form(server: httpx.Client, user_id: str) -> None:
    """`-F user_id=00007` and BentoML's quoted form mean the user that JSON's "00007" means."""
    expected = server.post("/recommend", json={"user_id": "00007"}).json()
    assert expected["tier"] == "taste"
    assert recommend(server, user_id=user_id).json() == expected


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_text_of_a_form_needs_no_quotes(server: httpx.Client, quote: str) -> None:
    """`-F relation=complements` is understood: what is wrong with it is the value, or the question."""
    problem = recommend(server, relation=f"{quote}complements{quote}").json()
    assert "complements go with something" in problem["detail"]
    problem = recommend(server, item_id="0004", relation=f"{quote}opposites{quote}").json()
    assert "must be similar or complements; got 'opposites'" in problem["detail"]


def test_bentomls_own_client_works(server: httpx.Client, boutique_folder: Path) -> None:
    """SyncHTTPClient sends files and fields as the service expects them."""
    with bentoml.SyncHTTPClient(str(server.base_url)) as client:
        answer = client.recommend(image=boutique_folder / "images" / "0004.jpg", user_id="00007", k=2)
        assert (answer["tier"], len(answer["items"])) == ("ranked", 2)
        assert client.recommend(user_id="00007")["tier"] == "taste"
        assert len(client.similar(item_id="0004", k=4)["items"]) == 4
        assert len(client.embed(image=boutique_folder / "images" / "0004.jpg")["embedding"]) == 32


def test_items_and_their_pictures_can_be_fetched(server: httpx.Client) -> None:
    """GET /items/{id} and its picture; unknown ones are 404."""
    assert server.get("/items/0004").json()["category"] == "dress"
    picture = server.get("/items/0004/picture")
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.content.startswith(b"\xff\xd8")
    assert_problem(server.get("/items/none"), 404)
    assert_problem(server.get("/items/none/picture"), 404)


def test_the_release_and_the_probes_answer(server: httpx.Client) -> None:
    """What is served, and that it is."""
    body = server.get("/release").json()
    assert body["release"] == "1"
    assert len(body["encoder"]["fingerprint"]) == 64
    assert server.get("/livez").status_code == server.get("/readyz").status_code == 200


def test_a_release_without_pictures_is_served(trained_shop: Shop, tmp_path: Path) -> None:
    """It answers users, names no encoder in its metrics, and refuses a photo."""
    with serve(trained_shop.releases / "2", tmp_path) as started:
        body = started.http.post("/recommend", json={"user_id": "00007", "k": 3}).json()
        assert (body["tier"], len(body["items"])) == ("taste", 3)
        assert "\nvitrine_encoder{" not in started.metrics_page()
        assert_problem(started.http.post("/recommend", files={"image": b"\xff\xd8"}), 422)


def test_the_openapi_document_lists_every_route(server: httpx.Client) -> None:
    """Each documented path answers, and no route of ours is missing from the document."""
    document = server.get("/docs.json").json()
    ours = {"/recommend", "/similar", "/embed", "/items/{item_id}", "/items/{item_id}/picture", "/release"}
    ours |= {"/docs.json", "/livez", "/readyz", "/v2", "/v2/models/{model}/infer"}
    assert ours <= set(document["paths"])
    for path, operations in document["paths"].items():
        for method in operations:
            named = path.format(item_id="0004", user_id="00007", model="encoder", version=1)
            response = server.request(method.upper(), named)
            assert response.status_code not in (404, 405, 500), (method, path)
    fields = document["components"]["schemas"]["RecommendBody"]["properties"]
    assert set(fields) == {
        "image",
        "item_id",
        "relation",
        "user_id",
        "session_id",
        "events",
        "k",
        "filter",
        "exclude_seen",
        "diversity",
        "personalization",
        "per_group",
        "distinct",
        "box",
        "remember",
    }


def test_the_openapi_document_says_what_may_be_sent_and_what_may_come(server: httpx.Client) -> None:
    """JSON beside multipart, null where null may stand, no key where none is asked for, and nobody else's pages."""
    document = server.get("/docs.json").json()
    null = {"type": "null"}
    for path, sends in (("/recommend", {"user_id": "00007", "filter": None}), ("/similar", {"item_id": "0004"})):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert set(content) == {"application/json", "multipart/form-data"}
        fields = content["application/json"]["schema"]["properties"]
        assert "image" not in fields
        assert {name for name, said in fields.items() if null in said.get("anyOf", ())} >= {"filter", "box"}
        assert server.post(path, json=sends).json()["query"] is None
        found = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert null in found["properties"]["query"]["anyOf"]
    assert set(document["paths"]["/embed"]["post"]["requestBody"]["content"]) == {"multipart/form-data"}
    assert document["components"]["securitySchemes"] == {}
    assert "http" not in json.dumps(document["info"])


def test_swagger_is_served_without_the_internet(server: httpx.Client) -> None:
    """The page at / loads its scripts from this server."""
    page = server.get("/").text
    assert "docs.json" in page
    assert "http" not in page
    for asset in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert server.get(f"/{asset}").status_code == 200


def test_unknown_routes_and_methods_are_problems(server: httpx.Client) -> None:
    """404 and 405 have the documented body as well."""
    assert_problem(server.get("/nothing/here"), 404)
    assert_problem(server.get("/recommend"), 405)
    assert_problem(server.delete("/release"), 405)


def test_labels_of_metrics_stay_bounded(service: Service) -> None:
    """What clients send never becomes a label."""
    for number in range(20):
        service.http.get(f"/nothing/{number}")
    text = service.metrics_page()
    assert "vitrine_stage_seconds_bucket" in text
    assert "/nothing" not in text


@pytest.mark.parametrize("name", sorted(hostile.pictures()))
def test_a_hostile_picture_gets_its_status(server: httpx.Client, name: str) -> None:
    """40 pictures that are none, or too much: each the right 4xx."""
    data, status = hostile.pictures()[name]
    assert_problem(recommend(server, data), status)


@pytest.mark.parametrize("name", sorted(hostile.requests(b"")))
def test_a_malformed_request_gets_its_status(server: httpx.Client, photo: bytes, name: str) -> None:
    """20 requests that make no sense: each the right 4xx."""
    arguments, status = hostile.requests(photo)[name]
    assert_problem(server.post("/recommend", **arguments), status)


def test_an_endless_upload_is_cut_off(server: httpx.Client) -> None:
    """A body without a declared length is counted as it comes."""

    def chunks():  # type: ignore[no-untyped-def]
        for _ in range(100):
            yield b" " * 65_536

    assert_problem(server.post("/recommend", content=chunks(), headers={"content-type": "application/json"}), 413)


def test_nothing_hostile_changes_memory_or_the_next_answer(server: httpx.Client, photo: bytes) -> None:
    """After all of it twice over, from several clients at once, the process is as large as after the first time."""
    expected = recommend(server, photo, user_id="00007").json()

    def attack() -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda picture: recommend(server, picture[0]), hostile.pictures().values()))
        for arguments, _ in hostile.requests(photo).values():
            server.post("/recommend", **arguments)

    attack()
    before = _memory(server)
    attack()
    attack()
    assert _memory(server) < before + 48 * 2**20
    assert recommend(server, photo, user_id="00007").json() == expected


def _memory(server: httpx.Client) -> int:
    """Resident bytes of the server and its workers."""
    process = psutil.Process(int(server.headers["X-Server-Pid"]))
    return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)])


def test_many_clients_get_the_answers_that_one_gets(server: httpx.Client, photo: bytes) -> None:
    """Under concurrency each reply belongs to its request."""
    users = [f"{number:05d}" for number in range(40)]
    alone = [recommend(server, photo, user_id=user).json() for user in users]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda user: recommend(server, photo, user_id=user).json(), users))
    assert together == alone
