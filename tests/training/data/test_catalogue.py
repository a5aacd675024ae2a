"""What can be used of a catalogue folder, and every reason why a row cannot."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from service.errors import CatalogueError
from tests.hostile import encode, gradient
from tests.training.data.folders import ITEMS, NOW, folder_of
from training.data.catalogue_reader import inspect, read
from training.data.pictures import examine


def reasons(folder: Path) -> dict[tuple[str, str], int]:
    return read(folder, now=NOW).unusable_by_reason()


def test_ids_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    """007, 7 and 1e5 stay three items, also where the id could be NA or empty text elsewhere."""
    folder = folder_of(tmp_path, items__csv="item_id,title\n007,a\n7,b\n1e5,c\nNA,d\n")
    assert read(folder).items["item_id"].tolist() == ["007", "7", "1e5", "NA"]


def test_columns_get_the_kind_that_their_cells_say(tmp_path: Path) -> None:
    """Numbers, booleans, tags and categories are told apart; categories stay names even as numbers."""
    text = "item_id,category,price,new,tags,size\n1,10,1.5,true,a|b,M\n2,20,,false,c,\n3,,3,,,L\n"
    catalogue = read(folder_of(tmp_path, items__csv=text))
    kinds = {"category": "category", "price": "number", "new": "boolean", "tags": "tags", "size": "category"}
    assert catalogue.kinds == kinds
    assert catalogue.items["tags"].tolist() == [["a", "b"], ["c"], []]
    assert catalogue.items["category"].tolist() == ["10", "20", None]
    assert np.isnan(catalogue.items["price"][1])


def test_unusable_items_are_counted_by_reason(tmp_path: Path) -> None:
    """Missing and repeated ids are dropped; an item without its picture stays, without a picture."""
    text = "item_id,image\n1,images/1.png\n,images/1.png\n1,\n2,images/none.png\n3,../../etc/passwd\n4,images/4.png\n"
    folder = folder_of(tmp_path, items__csv=text)
    (folder / "images" / "1.png").write_bytes(encode(gradient(), "PNG"))
    (folder / "images" / "4.png").write_bytes(b"not a picture")
    catalogue = read(folder)
    examined = examine(catalogue)
    catalogue = catalogue.with_pictures(examined.unreadable, examined.same)
    assert catalogue.unusable_by_reason() == {
        ("items", "missing item_id"): 1,
        ("items", "item_id already taken by an earlier row"): 1,
        ("items", "picture not found"): 1,
        ("items", "picture outside the catalogue folder"): 1,
        ("items", "unreadable picture"): 1,
    }
    assert catalogue.items["item_id"].tolist() == ["1", "2", "3", "4"]
    assert catalogue.pictured().tolist() == [0]
    assert [u.row for u in catalogue.unusable if u.reason == "picture not found"] == [4]


def test_unusable_interactions_are_counted_by_reason(tmp_path: Path) -> None:
    """Each bad row has one reason; the good ones remain, in the order of time."""
    log = (
        f"user_id,item_id,event,timestamp\nu,2,view,{NOW - 1}\nu,1,view,{NOW - 9}\n,1,view,1\nu,,view,1\nu,9,view,1\n"
        f"u,1,view,-5\nu,1,view,soon\nu,1,view,{NOW + 10**6}\n"
    )
    folder = folder_of(tmp_path, items__csv=ITEMS, interactions__csv=log)
    assert reasons(folder) == {
        ("interactions", "missing user_id"): 1,
        ("interactions", "missing item_id"): 1,
        ("interactions", "unknown item_id"): 1,
        ("interactions", "impossible timestamp"): 1,
        ("interactions", "timestamp before 1990: seconds since 1970, or dates, are expected"): 1,
        ("interactions", "timestamp in the future"): 1,
    }
    interactions = read(folder, now=NOW).interactions
    assert interactions is not None
    assert interactions["item"].tolist() == [0, 1]


def test_training_stops_past_the_share_of_unusable_rows(tmp_path: Path) -> None:
    """The error counts, names the commonest reason, and says what to do."""
    log = "user_id,item_id,event,timestamp\n" + f"u,9,view,{NOW}\n" * 2 + f"u,1,view,{NOW}\n" * 8
    catalogue = read(folder_of(tmp_path, items__csv=ITEMS, interactions__csv=log))
    with pytest.raises(CatalogueError, match=r"2 of 10 rows of interactions .* unknown item_id .2 rows.*vitrine check"):
        catalogue.require_usable(0.05)
    catalogue.require_usable(0.2)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither items.parquet nor items.csv"),
        ({"items__csv": "id,title\n1,a\n"}, "items.csv: no column item_id"),
        ({"items__csv": "item_id\n\n"}, "no usable row"),
        ({"items__csv": ""}, "items: "),
        ({"items__parquet": "nonsense"}, "items: the file cannot be read"),
        ({"items__csv": ITEMS, "items__parquet": "x"}, "holds both"),
        ({"items__csv": ITEMS, "interactions__csv": "user_id,item_id\n1,1\n"}, "no column timestamp"),
        ({"items__csv": ITEMS, "interactions__csv": "user_id,item_id,timestamp\n1,1,1\n"}, "event or value"),
        ({"items__csv": ITEMS, "interactions__csv": "user_id,item_id,event,timestamp\nu,9,v,1\n"}, "no usable row"),
    ],
)
def test_a_folder_that_is_no_catalogue_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    """Each says what was expected and what came."""
    with pytest.raises(CatalogueError, match=message):
        read(folder_of(tmp_path, **files))


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    """Equal content, equal fingerprint; a changed picture changes it."""
    folder = folder_of(tmp_path, items__csv="item_id,image\n1,images/1.png\n")
    (folder / "images" / "1.png").write_bytes(b"one")
    before = read(folder).fingerprint()
    assert read(folder).fingerprint() == before
    (folder / "images" / "1.png").write_bytes(b"two")
    assert read(folder).fingerprint() != before


def test_what_is_unusable_is_listed_also_where_nothing_is_left(tmp_path: Path) -> None:
    """`inspect` says every reason with its row; only who wants to train is refused."""
    log = f"user_id,item_id,event,timestamp\nu,9,view,{NOW}\nu,1,stare,{NOW}\n"
    folder = folder_of(tmp_path, items__csv=ITEMS, interactions__csv=log)
    found = inspect(folder, now=NOW)
    assert found.interactions is not None
    assert found.interactions.empty
    assert [(u.row, u.reason) for u in found.unusable] == [(1, "unknown item_id"), (2, "unknown event 'stare'")]
    assert "vitrine check" not in found.problem()


NOTHING = ["NaN", "N/A", "NULL", "None", "-", "nan", ""]


@pytest.mark.parametrize("word", NOTHING)
def test_words_for_nothing_are_nothing_among_numbers(tmp_path: Path, word: str) -> None:
    """And only there: a category may be called None."""
    text = f"item_id,price,name\n1,10.5,{word or 'x'}\n2,{word},b\n3,7,c\n"
    catalogue = read(folder_of(tmp_path, items__csv=text))
    assert catalogue.kinds["price"] == "number"
    assert np.isnan(catalogue.items["price"][1])
    assert catalogue.items["name"][0] == (word or "x")


def why(folder: Path) -> dict[str, str]:
    return {column.name: column.why for column in inspect(folder, now=NOW).columns if column.why}


def test_check_says_why_a_column_is_what_it_is(tmp_path: Path) -> None:
    """Which cell keeps it from being numbers; why numbers are names; what is empty; what is read otherwise."""
    text = (
        "item_id,price,code,seller,empty,cost,weight\n1,1.5,0001,1234567890123456780,,1.299,3\n"
        "2,N/K,0002,1234567890123456781,,2.500,4\n3,2,0010,1234567890123456780,,3.100,5\n"
    )
    found = why(folder_of(tmp_path, items__csv=text))
    assert found["price"] == 'would be a number but for row 2: "N/K"'
    assert "leading zeros" in found["code"]
    assert "1234567890123456780" in found["seller"]
    assert found["empty"] == "every cell is empty"
    assert "1.299" in found["cost"]
    assert "weight" not in found
    items = read(tmp_path).items
    assert items["seller"].tolist()[:2] == ["1234567890123456780", "1234567890123456781"]
    assert items["code"].tolist() == ["0001", "0002", "0010"]


@pytest.mark.parametrize("prices", [["$12", "$10"], ["1.299,00 €", "5,00 €"], ["10,50", "3,20"], ["12 EUR", "9 EUR"]])
def test_a_column_called_price_that_is_none_is_said(tmp_path: Path, prices: list[str]) -> None:
    """So that nobody looks for ranges in vain."""
    rows = "".join(f'{at},"{price}"\n' for at, price in enumerate(prices))
    assert "is no number" in why(folder_of(tmp_path, items__csv=f"item_id,price\n{rows}"))["price"]


def test_a_column_may_have_any_name(tmp_path: Path) -> None:
    """Also those that tables of ours have had."""
    text = "item_id,row,item,index,score,event\n1,shelf,a,1,2,x\n2,floor,b,2,3,y\n"
    items = read(folder_of(tmp_path, items__csv=text)).items
    assert items["row"].tolist() == ["shelf", "floor"]
    assert items["item"].tolist() == ["a", "b"]


def pictures(tmp_path: Path, cell: str, *names: str) -> tuple[tuple[str, ...], list[str]]:
    """What is found of a cell, and the reasons against the rest."""
    folder = folder_of(tmp_path, items__csv=f'item_id,image\n1,"{cell}"\n')
    for name in names:
        (folder / "images" / name).write_bytes(b"x")
    catalogue = inspect(folder)
    return catalogue.items["images"][0], [u.reason for u in catalogue.unusable]


@pytest.mark.parametrize("mark", ["|", ";", " | "])
def test_an_item_may_have_several_pictures(tmp_path: Path, mark: str) -> None:
    """In one cell; those that are not there are counted one by one."""
    found, reasons = pictures(tmp_path, mark.join(["images/a.jpg", "images/b.jpg", "images/c.jpg"]), "a.jpg", "c.jpg")
    assert found == ("images/a.jpg", "images/c.jpg")
    assert reasons == ["picture not found"]


@pytest.mark.parametrize("cell", ["x" * 5000 + ".jpg", "a\0b.jpg", "|".join(["images/no.jpg"] * 3)])
def test_impossible_names_are_pictures_that_are_not_there(tmp_path: Path, cell: str) -> None:
    """However long, and with a zero byte."""
    assert set(pictures(tmp_path, cell)[1]) == {"picture not found"}


@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_both_forms_of_unicode_name_one_file(tmp_path: Path, written: str, stored: str) -> None:
    """macOS takes letters and accents apart."""
    cell = unicodedata.normalize(written, "images/Café.jpg")
    assert len(pictures(tmp_path, cell, unicodedata.normalize(stored, "Café.jpg"))[0]) == 1


def test_links_to_elsewhere_are_followed_but_cells_do_not_lead_out(tmp_path: Path) -> None:
    """Who made the folder made the link; the cell is data."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.jpg").write_bytes(b"x")
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "linked").symlink_to(elsewhere)
    cells = ["linked/a.jpg", "../elsewhere/a.jpg", f"{elsewhere}/a.jpg", "https://shop.example/a.jpg"]
    (folder / "items.csv").write_text("item_id,image\n" + "".join(f"{at},{cell}\n" for at, cell in enumerate(cells)))
    catalogue = inspect(folder)
    assert catalogue.pictured().tolist() == [0]
    outside = "picture outside the catalogue folder"
    assert [u.reason for u in catalogue.unusable] == [outside, outside, "picture is a URL, which is not fetched"]
