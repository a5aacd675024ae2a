"""What can be used of a catalogue folder, and every reason why a row cannot."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.errors import CatalogueError
from tests.hostile import encode, gradient
from training.catalogue import read, seconds_of
from training.pictures import find_unreadable

NOW = 1_700_000_000


def folder_of(tmp_path: Path, **files: str | bytes) -> Path:
    """A catalogue folder; file names have __ for the dot."""
    (tmp_path / "images").mkdir()
    for name, text in files.items():
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name.replace("__", ".")).write_bytes(content)
    return tmp_path


ITEMS = "item_id,image,title,category\n1,,One,a\n2,,Two,b\n"


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


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    """Both formats give one catalogue; lists in Parquet are tags."""
    folder = folder_of(tmp_path)
    table = pd.DataFrame({"item_id": [7, 8], "category": ["a", None], "tags": [["x", "y"], []], "price": [1.0, None]})
    table.to_parquet(folder / "items.parquet")
    catalogue = read(folder)
    assert catalogue.items["item_id"].tolist() == ["7", "8"]
    assert catalogue.kinds == {"category": "category", "tags": "tags", "price": "number"}


def test_unusable_items_are_counted_by_reason(tmp_path: Path) -> None:
    """Missing and repeated ids are dropped; an item without its picture stays, without a picture."""
    text = "item_id,image\n1,images/1.png\n,images/1.png\n1,\n2,images/none.png\n3,../../etc/passwd\n4,images/4.png\n"
    folder = folder_of(tmp_path, items__csv=text)
    (folder / "images" / "1.png").write_bytes(encode(gradient(), "PNG"))
    (folder / "images" / "4.png").write_bytes(b"not a picture")
    catalogue = read(folder)
    catalogue = catalogue.with_unreadable(find_unreadable(catalogue))
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
        "user_id,item_id,event,timestamp\nu,2,view,200\nu,1,view,100\n,1,view,1\nu,,view,1\nu,9,view,1\n"
        f"u,1,view,-5\nu,1,view,soon\nu,1,view,{NOW + 10**6}\n"
    )
    folder = folder_of(tmp_path, items__csv=ITEMS, interactions__csv=log)
    assert reasons(folder) == {
        ("interactions", "missing user_id"): 1,
        ("interactions", "missing item_id"): 1,
        ("interactions", "unknown item_id"): 1,
        ("interactions", "impossible timestamp"): 2,
        ("interactions", "timestamp in the future"): 1,
    }
    interactions = read(folder, now=NOW).interactions
    assert interactions is not None
    assert interactions["item"].tolist() == [0, 1]


def test_rows_of_the_wrong_length_are_counted(tmp_path: Path) -> None:
    """A broken line of a CSV is one unusable row, not the end."""
    log = "user_id,item_id,event,timestamp\nu,1,view,5\nu,1,view\nu,2,view,6\n"
    folder = folder_of(tmp_path, items__csv=ITEMS, interactions__csv=log)
    assert reasons(folder) == {("interactions", "4 cells expected"): 1}


def test_times_may_be_seconds_milliseconds_or_dates() -> None:
    """All say the same moment; what is none is NaN."""
    moment = 1_321_000_000.0
    texts = pd.Series(["1321000000", "1321000000000", "2011-11-11T08:26:40Z", "2011-11-11 08:26:40", "never", None])
    np.testing.assert_array_equal(seconds_of(texts), [moment] * 4 + [np.nan] * 2)


def test_training_stops_past_the_share_of_unusable_rows(tmp_path: Path) -> None:
    """The error counts, names the commonest reason, and says what to do."""
    log = "user_id,item_id,event,timestamp\n" + "u,9,view,1\n" * 2 + "u,1,view,1\n" * 8
    catalogue = read(folder_of(tmp_path, items__csv=ITEMS, interactions__csv=log))
    with pytest.raises(CatalogueError, match=r"2 of 10 rows of interactions .* unknown item_id.*vitrine check"):
        catalogue.require_usable(0.05)
    catalogue.require_usable(0.2)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither items.parquet nor items.csv"),
        ({"items__csv": "id,title\n1,a\n"}, "items: no column item_id"),
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
