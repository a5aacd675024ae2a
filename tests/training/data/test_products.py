"""One product has several pictures, variants, and the same picture under another id; some things go together."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from service.errors import BadQuery, NotFound
from service.recommender.pipeline import Recommender
from service.recommender.query import Query, SimilarQuery, parse_query
from service.recommender.recommendation import Recommendation
from service.recommender.release import Release
from tests.conftest import made_once
from tests.quick import options
from training.data import catalogue_reader
from training.data.pictures import examine
from training.demo import boutique
from training.demo.garments import Garment, draw
from training.pipeline import train
from training.ranker.fitting import DAY
from training.ranker.item_neighbours import together

pytestmark = pytest.mark.slow  # two releases are trained for it

ITEMS, USERS = 60, 80
BESIDE = Garment("hat", "violet", "dots", "wood", 0.8, 3.0, 1.0, seed=7_000_001)  # the second picture of item 0002
VARIANTS = ("0010", "0011", "0012")


def write(folder: Path) -> None:
    """A boutique in which three items are variants of one, one has two pictures, one is there twice, and two go
    together."""
    boutique.write(folder, items=ITEMS, shoppers=USERS, seed=3)
    items = pd.read_csv(folder / "items.csv", dtype=str)
    draw(BESIDE).save(folder / "images" / "beside.jpg", "JPEG")
    items["image"] = items["image"].where(items["item_id"] != "0002", items["image"] + "|images/beside.jpg")
    with Image.open(folder / "images" / "0003.jpg") as picture:
        smaller = picture.resize((200, 200)).point([min(255, int(1.1 * level)) for level in range(256)] * 3)
    smaller.save(folder / "images" / "0059.jpg", "JPEG", quality=70)
    items["group"] = [17 if item in VARIANTS else 100 + row for row, item in enumerate(items["item_id"])]
    items.to_csv(folder / "items.csv", index=False)
    log = pd.read_csv(folder / "interactions.csv", dtype={"user_id": str, "item_id": str})
    start = int(log["timestamp"].min())
    pair = [
        {"user_id": f"{user:05d}", "item_id": item, "event": "purchase", "timestamp": start + user * 3600 + place}
        for user in range(USERS) for place, item in enumerate(two_of_other_kinds(items))
    ]  # fmt: skip
    pd.concat([log, pd.DataFrame(pair)]).sort_values("timestamp").to_csv(folder / "interactions.csv", index=False)


def two_of_other_kinds(items: pd.DataFrame) -> tuple[str, str]:
    """Item 0020 and the first after it of another category."""
    category = items.set_index("item_id")["category"]
    return "0020", next(item for item in category.index[21:] if category[item] != category["0020"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue."""
    return made_once(tmp_path_factory, "products", write)


@pytest.fixture(scope="module")
def recommender(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """Its release."""
    made = made_once(tmp_path_factory, "product-releases", lambda releases: train(options(folder, releases)))
    return Recommender(Release.open(made / "1"))


def ids(answer: Recommendation) -> list[str]:
    return [item.item_id for item in answer.items]


def jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG")
    return data.getvalue()


def test_an_item_is_found_by_each_of_its_pictures_and_answered_once(recommender: Recommender) -> None:
    """The second picture of an item finds it first; it is one item of the answer, which is as long as was asked."""
    second = jpeg(draw(BESIDE))
    for answer in (
        recommender.similar([SimilarQuery(image=second, k=ITEMS)])[0],
        recommender.recommend([Query(image=second, k=ITEMS)])[0],
    ):
        assert ids(answer)[0] == "0002"
        assert answer.match is not None
        assert answer.match["item_id"] == "0002"
        assert len(set(ids(answer))) == len(ids(answer)) == ITEMS - len(VARIANTS) + 1


def test_likeness_is_that_of_the_nearest_picture(recommender: Recommender) -> None:
    """The item's likeness to its own second picture is 1, though its first shows something else."""
    [answer] = recommender.similar([SimilarQuery(image=jpeg(draw(BESIDE)), k=1)])
    assert answer.items[0].score > 0.98


def test_variants_of_one_product_are_answered_once_unless_more_are_asked_for(recommender: Recommender) -> None:
    """At most one of a group, as many as `per_group` says, over photos, users and items alike."""
    photo = (recommender.release.path / "golden" / "0.picture").read_bytes()
    for query in (Query(k=ITEMS), Query(user_id="00007", k=ITEMS), Query(image=photo, user_id="00007", k=ITEMS)):
        for most in (1, 2, 3):
            [answer] = recommender.recommend([parse(query, per_group=most)])
            assert sum(item in VARIANTS for item in ids(answer)) <= most
    [answer] = recommender.recommend([Query(k=ITEMS, per_group=3, exclude_seen=False)])
    assert set(VARIANTS) < set(ids(answer))
    [alone] = recommender.recommend([Query(k=ITEMS, exclude_seen=False)])
    assert sum(item in VARIANTS for item in ids(alone)) == 1


def parse(query: Query, per_group: int) -> Query:
    return parse_query(
        {"k": query.k, "per_group": per_group} | ({"user_id": query.user_id} if query.user_id else {}),
        image=query.image,
    )


def test_an_item_is_not_answered_with_its_own_variants(recommender: Recommender) -> None:
    """What is asked about is one of its group already; with `per_group` 2 the nearest of them is answered too."""
    [answer] = recommender.similar([SimilarQuery(item_id="0010", k=ITEMS)])
    assert not {*VARIANTS} & {*ids(answer)}
    [answer] = recommender.similar([SimilarQuery(item_id="0010", k=ITEMS, per_group=2)])
    assert len({*VARIANTS} & {*ids(answer)}) == 1


def test_a_picture_that_is_there_twice_is_found_when_the_catalogue_is_checked(folder: Path) -> None:
    """The smaller, brighter copy under another id, and nothing else."""
    found = catalogue_reader.read(folder)
    examined = examine(found)
    assert found.with_pictures(examined.unreadable, examined.same).near_duplicates() == [["0003", "0059"]]


def test_near_duplicates_are_answered_once_where_that_is_asked(recommender: Recommender) -> None:
    """`distinct` leaves out the second of them; without it both are answered."""
    assert {"0003", "0059"} < set(ids(recommender.recommend([Query(k=ITEMS)])[0]))
    [answer] = recommender.recommend([Query(k=ITEMS, distinct=True)])
    assert len({"0003", "0059"} & set(ids(answer))) == 1


def test_what_a_release_cannot_tell_is_an_error(release_folder: Path) -> None:
    """Without a column `group` there is nothing to collapse by; an unknown item is not found."""
    plain = Recommender(Release.open(release_folder))
    with pytest.raises(BadQuery, match="no column `group`"):
        plain.recommend([Query(per_group=1)])
    with pytest.raises(NotFound):
        plain.recommend([Query(item_id="nothing")])


def test_complements_are_bought_together_and_of_another_category(recommender: Recommender, folder: Path) -> None:
    """Eighty users bought two things in one hour: each is what goes with the other, by id and by photo."""
    table = pd.read_csv(folder / "items.csv", dtype=str)
    one, other = two_of_other_kinds(table)
    category = table.set_index("item_id")["category"]
    photo = (folder / "images" / f"{one}.jpg").read_bytes()
    for query in (Query(item_id=one, relation="complements"), Query(image=photo, relation="complements")):
        [answer] = recommender.recommend([query])
        assert answer.tier == "complements"
        assert ids(answer)[0] == other
        assert all(category[item] != category[one] for item in ids(answer))
    [like] = recommender.recommend([Query(item_id=one)])
    assert like.tier == "visual"
    assert one not in ids(like)
    assert ids(like) != ids(answer)


def test_together_counts_occasions_and_not_whole_lives() -> None:
    """Two items of one day are together; a third that the same people touched in another month is not."""
    rows = [
        {"user_id": str(user), "item": item, "event": "view", "timestamp": 10**9 + day * DAY}
        for user in range(6) for item, day in ((0, 0), (1, 0), (2, 30), (3, 30))
    ]  # fmt: skip
    found = together(pd.DataFrame(rows).sort_values("timestamp", kind="stable"), items=4).toarray()
    assert found[0, 1] == found[1, 0] == pytest.approx(6 / 8)
    assert np.count_nonzero(found) == 4


def test_a_column_of_group_numbers_is_one_of_names(folder: Path) -> None:
    """17 is the name of a product, and nothing to count with."""
    assert catalogue_reader.read(folder).kinds["group"] == "category"
