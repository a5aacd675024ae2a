"""A catalogue folder and a store become one folder, without a user id in it."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import CatalogueError
from service.live.operations import (
    AddEvents,
    EraseUser,
    LinkSession,
    NewEvent,
    PatchItem,
    Picture,
    PutItem,
    WithdrawItem,
)
from service.live.store import Changes, Store
from service.recommender.user_keys import erasure_mark, hash_session, hash_user
from tests.stored_text import of_parquet
from training.data.catalogue import Catalogue, StoreMark
from training.data.catalogue_reader import read
from training.live.export import export

KEY = "a secret of the test"
ITEMS = """item_id,image,title,category,price,sale,tags
007,images/a.jpg,Red dress,dress,10.5,true,red|wool
008,images/b.jpg,Blue hat,hat,20,false,blue
009,images/a.jpg,Old hat,hat,5,true,
"""
LOG = """user_id,item_id,event,timestamp
anna,007,view,1690000000
anna,009,purchase,1690000100
berta,008,like,1690000200
berta,007,view,1690000300
"""


def picture(colour: tuple[int, int, int], kind: str = "PNG") -> bytes:
    """A picture of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, kind)
    return out.getvalue()


def kept(content: bytes) -> Picture:
    """As the service leaves it in the store."""
    return Picture(hashlib.sha256(content).hexdigest(), content, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three items, two users."""
    home = tmp_path / "shop"
    (home / "images").mkdir(parents=True)
    for name, colour in (("a", (255, 0, 0)), ("b", (0, 0, 255))):
        (home / "images" / f"{name}.jpg").write_bytes(picture(colour, "JPEG"))
    (home / "items.csv").write_text(ITEMS)
    (home / "interactions.csv").write_text(LOG)
    (home / "users.csv").write_text("user_id,city\nanna,Lyon\nberta,Bonn\n")
    return home


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store.open(str(tmp_path / "store.db"))


def exported(store: Store, folder: Path | None, tmp_path: Path) -> Catalogue:
    """What a training reads of it."""
    export(store, folder, tmp_path / "out", user_key=KEY)
    return read(tmp_path / "out")


def row(catalogue: Catalogue, item_id: str) -> dict:
    """The values of one item."""
    found = catalogue.items[catalogue.items["item_id"] == item_id]
    assert len(found) == 1
    return dict(found.iloc[0])


def test_an_empty_store_changes_nothing_but_the_names_of_users(store: Store, folder: Path, tmp_path: Path) -> None:
    """Values, their kinds, pictures and the log are those of the folder."""
    before, after = read(folder), exported(store, folder, tmp_path)
    assert after.items.drop(columns="\0row").equals(before.items.drop(columns="\0row"))
    assert after.kinds == before.kinds
    assert before.interactions is not None
    assert after.interactions is not None
    assert after.interactions["user_id"].tolist() == [hash_user(u, KEY) for u in before.interactions["user_id"]]
    assert after.interactions.drop(columns="user_id").equals(before.interactions.drop(columns="user_id"))
    assert after.users is not None
    assert after.users["city"].tolist() == ["Lyon", "Bonn"]
    assert after.picture(0) == before.picture(0)


def test_changes_go_over_the_folder(store: Store, folder: Path, tmp_path: Path) -> None:
    """A patch changes what it names, null takes away, a whole item replaces all, one that is withdrawn is gone."""
    store.write([
        PatchItem("007", {"price": 12.25, "sale": None, "material": ["silk", "lace"]}, known=True),
        PutItem("008", {"title": "Green cap", "category": "cap"}),
        WithdrawItem("009", known=True),
        PutItem("010", {"title": "New", "category": "hat", "price": 7, "sale": False}, [kept(picture((0, 9, 0)))]),
    ])  # fmt: skip
    found = exported(store, folder, tmp_path)
    assert found.items["item_id"].tolist() == ["007", "008", "010"]
    dress, cap, new = (row(found, item) for item in ("007", "008", "010"))
    assert (dress["title"], dress["price"], dress["sale"], dress["tags"]) == ("Red dress", 12.25, None, ["red", "wool"])
    assert dress["material"] == ["silk", "lace"]
    assert (cap["title"], cap["category"], cap["sale"], cap["image"]) == ("Green cap", "cap", None, "images/b.jpg")
    assert np.isnan(cap["price"])
    assert (new["price"], new["sale"]) == (7.0, False)
    assert found.read_picture(new["image"]) == picture((0, 9, 0))
    assert new["image"].endswith(".png")
    assert found.kinds["price"] == "number"
    assert found.interactions is not None
    assert found.interactions["item"].tolist() == [0, 1, 0]  # without the purchase of what was withdrawn


def test_events_are_appended_and_sessions_are_their_users(store: Store, folder: Path, tmp_path: Path) -> None:
    """A session that was joined is the user's; one that was not is somebody of its own."""
    anna, visit, other = hash_user("anna", KEY), hash_session("v1", KEY), hash_session("v2", KEY)
    store.write([
        AddEvents([NewEvent(visit, "008", "cart", None, 1_690_000_400.5), NewEvent(other, "007", "view")]),
        AddEvents([NewEvent(anna, "007", "rated", 4.0, 1_690_000_500.0)]),
        LinkSession(visit, anna),
    ])  # fmt: skip
    log = exported(store, folder, tmp_path).interactions
    assert log is not None
    assert log["user_id"].tolist()[4:] == [anna, anna, other]
    assert log["event"].tolist()[4:6] == ["cart", ""]
    assert log["item"].tolist()[4:] == [1, 0, 0]


def test_who_was_erased_is_left_out_but_for_what_came_later(store: Store, folder: Path, tmp_path: Path) -> None:
    """Neither an id nor a key of the past is in any file."""
    anna, berta = hash_user("anna", KEY), hash_user("berta", KEY)
    store.write([AddEvents([NewEvent(anna, "008", "view"), NewEvent(berta, "008", "view")])])
    store.write([EraseUser(anna, erasure_mark(anna)), EraseUser(berta, erasure_mark(berta))])
    store.write([AddEvents([NewEvent(berta, "007", "like")])])
    found = exported(store, folder, tmp_path)
    assert found.interactions is not None
    assert found.interactions[["user_id", "event"]].values.tolist() == [[berta, "like"]]
    assert found.users is None
    texts = [of_parquet(path) for path in (tmp_path / "out").glob("*.parquet")] + [
        (tmp_path / "out" / "store.json").read_text()
    ]
    assert not any(name in text for text in texts for name in ("anna", "berta", anna, "Lyon"))


def test_the_folder_says_what_it_holds(store: Store, folder: Path, tmp_path: Path) -> None:
    """Of which store, up to which change, and by which key."""
    store.write([PatchItem("007", {"price": 1}, known=True), PatchItem("008", {"price": 2}, known=True)])
    found = exported(store, folder, tmp_path)
    assert found.store is not None
    assert (found.store.store, found.store.sequence) == (store.id, 2)
    found.require_key(KEY)
    with pytest.raises(CatalogueError, match="another key"):
        found.require_key("not that one")


def test_a_store_may_hold_the_whole_catalogue(store: Store, tmp_path: Path) -> None:
    """No folder is needed; an item that nobody has whole is left out, and said."""
    store.write(
        [PutItem("1", {"category": "hat"}, [kept(picture((1, 2, 3)))]), PatchItem("2", {"price": 3}, known=True)]
    )
    found = exported(store, None, tmp_path)
    assert found.items["item_id"].tolist() == ["1"]


def test_a_store_is_read_in_parts(store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was joined or erased between two of them is so for what was read before."""
    monkeypatch.setattr("service.live.store.WINDOW", 2)
    visit, anna, carl = hash_session("v", KEY), hash_user("anna", KEY), hash_user("carl", KEY)
    store.write(
        [AddEvents([NewEvent(visit, "007", "view"), NewEvent(carl, "007", "view"), NewEvent(carl, "008", "cart")])]
    )
    changes, since = Store.changes, []

    def meanwhile(self: Store, after: int) -> Changes:
        found = changes(self, after)
        if not since:
            since.append(True)
            self.write([LinkSession(visit, anna), EraseUser(carl, erasure_mark(carl))])
        return found

    monkeypatch.setattr(Store, "changes", meanwhile)
    log = exported(store, folder, tmp_path).interactions
    assert log is not None
    assert log["user_id"].tolist()[4:] == [anna]
    assert log["item"].tolist()[4:] == [0]


def test_a_second_export_takes_pictures_from_the_first(store: Store, folder: Path, tmp_path: Path) -> None:
    """The same file, under the same name; a picture of nobody is gone."""
    store.write([PutItem("1", {}, [kept(picture((1, 2, 3)))]), PutItem("2", {}, [kept(picture((4, 5, 6)))])])
    first = exported(store, folder, tmp_path)
    place = first.path / row(first, "1")["image"]
    inode = place.stat().st_ino
    store.write([WithdrawItem("2", known=False)])
    second = exported(store, folder, tmp_path)
    assert (second.path / row(second, "1")["image"]).stat().st_ino == inode
    assert len(list((second.path / "images" / "store").iterdir())) == 1


def test_an_export_that_fails_leaves_what_was_there(store: Store, folder: Path, tmp_path: Path) -> None:
    """Whole or not at all."""
    exported(store, folder, tmp_path)
    before = StoreMark.read(tmp_path / "out")
    store.write([WithdrawItem(item, known=True) for item in ("007", "008", "009")])
    with pytest.raises(CatalogueError, match="nothing to export"):
        export(store, folder, tmp_path / "out", user_key=KEY)
    assert StoreMark.read(tmp_path / "out") == before
    assert not list(tmp_path.glob(".part.*"))


def test_an_export_is_not_exported_again(store: Store, folder: Path, tmp_path: Path) -> None:
    """Its users have no ids any more."""
    exported(store, folder, tmp_path)
    with pytest.raises(CatalogueError, match="was exported"):
        export(store, tmp_path / "out", tmp_path / "twice", user_key=KEY)


def test_a_mark_that_cannot_be_read_is_refused(folder: Path) -> None:
    """It is not taken for a folder without one."""
    for text in ("", "[]", json.dumps({"format": 2})):
        (folder / "store.json").write_text(text)
        with pytest.raises(CatalogueError, match=r"store\.json"):
            read(folder)
