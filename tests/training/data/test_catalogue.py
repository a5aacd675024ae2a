"""What can be used of a catalogue folder, and every reason why a row cannot."""

import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.errors import CatalogueError
from tests.hostile import encode, gradient
from training.data.catalogue import Catalogue
from training.data.catalogue_reader import inspect, read
from training.data.pictures import examine

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


def test_rows_of_the_wrong_length_are_counted(tmp_path: Path) -> None:
    """A broken line of a CSV is one unusable row, not the end."""
    log = f"user_id,item_id,event,timestamp\nu,1,view,{NOW}\nu,1,view\nu,2,view,{NOW}\n"
    folder = folder_of(tmp_path, items__csv=ITEMS, interactions__csv=log)
    assert reasons(folder) == {("interactions", "4 cells expected, 3 found"): 1}


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


@pytest.mark.parametrize(
    ("header", "message"),
    [("item_id,colour,colour", "'colour' more than once .columns 2 and 3."), ("id,title,x", "no column item_id")],
)
def test_a_header_that_cannot_be_meant_is_refused(tmp_path: Path, header: str, message: str) -> None:
    """It names the column."""
    with pytest.raises(CatalogueError, match=message):
        read(folder_of(tmp_path, items__csv=f"{header}\n1,a,b\n"))


def test_a_column_may_have_any_name(tmp_path: Path) -> None:
    """Also those that tables of ours have had."""
    text = "item_id,row,item,index,score,event\n1,shelf,a,1,2,x\n2,floor,b,2,3,y\n"
    items = read(folder_of(tmp_path, items__csv=text)).items
    assert items["row"].tolist() == ["shelf", "floor"]
    assert items["item"].tolist() == ["a", "b"]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le"])
def test_other_separators_and_encodings_are_read_and_said(tmp_path: Path, delimiter: str, encoding: str) -> None:
    """As spreadsheets of other countries write them."""
    text = "item_id,title,price\n1,Größe,3.5\n2,Café,4\n".replace(",", delimiter)
    catalogue = read(folder_of(tmp_path, items__csv=text.encode(encoding)))
    assert catalogue.items["title"].tolist() == ["Größe", "Café"]
    assert catalogue.kinds["price"] == "number"
    assert any("separated by" in note for note in catalogue.notes)
    assert any("is read as" in note for note in catalogue.notes) is (not encoding.startswith("utf-8"))


def test_a_separator_at_the_end_of_every_row_is_passed_over(tmp_path: Path) -> None:
    """Where the header has none; nothing is in the cell."""
    catalogue = read(folder_of(tmp_path, items__csv="item_id,title\n1,a,\n2,b,\n"))
    assert catalogue.items["title"].tolist() == ["a", "b"]
    assert "separator" in catalogue.notes[0]


def test_rows_keep_their_numbers_behind_a_broken_one(tmp_path: Path) -> None:
    """A person finds the row by its number."""
    catalogue = inspect(folder_of(tmp_path, items__csv="item_id,image\n1,\n2,,,\n3,gone.jpg\n"))
    assert {(u.row, u.reason[:15]) for u in catalogue.unusable} == {(2, "2 cells expecte"), (3, "picture not fou")}


@pytest.mark.parametrize("closing", ['4,"d",t\n', "4,d,t\n"])
def test_a_quote_that_is_not_closed_is_found(tmp_path: Path, closing: str) -> None:
    """It takes in the rows up to the next quote, or to the end: each is named, none vanishes."""
    text = f'item_id,title,colour\n1,a,r\n2,"b,s\n3,c,t\n{closing}5,e,u\n'
    found = inspect(folder_of(tmp_path, items__csv=text))
    named = sorted(u.row for u in found.unusable)
    assert named[:3] == [2, 3, 4]
    assert len(named) + len(found.items) == found.rows["items"] == 5
    assert all("quote" in u.reason for u in found.unusable)


def test_a_cell_of_several_lines_is_a_cell(tmp_path: Path) -> None:
    """A description may have lines, and commas."""
    text = 'item_id,title,colour\n1,"warm, soft\nand red",r\n2,b,s\n'
    assert read(folder_of(tmp_path, items__csv=text)).items["title"].tolist() == ["warm, soft\nand red", "b"]


def test_parquet_as_pandas_writes_it_is_read(tmp_path: Path) -> None:
    """Ids in the index, ids that became floats, whole numbers with gaps, beyond 2^53 too."""
    folder = folder_of(tmp_path)
    items = pd.DataFrame({"title": ["a", "b", "c"], "seller": pd.array([2**60 + 1, None, 7], dtype="Int64")})
    items.index = pd.Index([100, 101, 102], name="item_id")
    items.to_parquet(folder / "items.parquet")
    log = pd.DataFrame({"user_id": ["u"] * 3, "item_id": [100.0, np.nan, 102.0], "event": "view", "timestamp": NOW})
    log.to_parquet(folder / "interactions.parquet")
    catalogue = read(folder, now=NOW)
    assert catalogue.items["item_id"].tolist() == ["100", "101", "102"]
    assert catalogue.items["seller"].tolist() == [str(2**60 + 1), None, "7"]
    assert catalogue.interactions is not None
    assert catalogue.interactions["item"].tolist() == [0, 2]
    assert [u.reason for u in catalogue.unusable] == ["missing item_id"]


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


def log_of(tmp_path: Path, rows: str) -> Catalogue:
    return inspect(folder_of(tmp_path, items__csv=ITEMS, interactions__csv=rows), now=NOW)


@pytest.mark.parametrize(
    ("name", "event"),
    [("Purchase", "purchase"), ("transaction", "purchase"), ("add_to_cart", "cart"), ("Product Added", "cart"),
     ("addtocart", "cart"), ("view_item", "view"), ("Product Viewed", "view"), ("select-item", "view"),
     ("Order Completed", "purchase"), ("checkout_completed", "purchase"), ("CLICK", "view"), ("AddToWishlist", "like"),
     ("ViewContent", "view"), ("refund", "dismiss")],
)  # fmt: skip
def test_common_names_of_events_are_known(tmp_path: Path, name: str, event: str) -> None:
    """Case and separators do not matter."""
    found = log_of(tmp_path, f"user_id,item_id,event,timestamp\nu,1,{name},{NOW}\n").interactions
    assert found is not None
    assert found["event"].tolist() == [event]


def test_what_an_event_means_is_never_guessed(tmp_path: Path) -> None:
    """Unknown names are unusable rows; names that say nothing of liking are left out and said."""
    rows = "".join(f"u,1,{name},{NOW}\n" for name in ("view", "frobnicate", "frobnicate", "session_start", ""))
    catalogue = log_of(tmp_path, "user_id,item_id,event,timestamp\n" + rows)
    assert catalogue.interactions is not None
    assert catalogue.interactions["event"].tolist() == ["view"]
    assert catalogue.unusable_by_reason() == {
        ("interactions", "unknown event 'frobnicate'"): 2, ("interactions", "neither event nor value"): 1,
    }  # fmt: skip
    assert any("session_start (1)" in note for note in catalogue.notes)


def test_values_give_weights(tmp_path: Path) -> None:
    """More is more; zero and below is a dismissal."""
    rows = "".join(f"u{at},1,{value},{NOW}\n" for at, value in enumerate((1, 10, 100, 0, -3)))
    found = log_of(tmp_path, "user_id,item_id,value,timestamp\n" + rows).interactions
    assert found is not None
    assert found["event"].tolist() == ["", "", "", "dismiss", "dismiss"]
    np.testing.assert_allclose(found["weight"][:3], [0.5, 1.0, 1.5])


def test_ratings_are_recognised_and_said(tmp_path: Path) -> None:
    """Stars count by their place on the scale; as an event `rating` the value is what counts."""
    values = [1, 2, 3, 4, 5, 4, 5, 5, 3, 4]
    rows = "".join(f"u{at},1,rating,{value},{NOW}\n" for at, value in enumerate(values))
    catalogue = log_of(tmp_path, "user_id,item_id,event,value,timestamp\n" + rows)
    assert catalogue.interactions is not None
    np.testing.assert_allclose(catalogue.interactions["weight"][:5], [0.5, 0.8125, 1.125, 1.4375, 1.75])
    assert any("ratings from 1 to 5" in note for note in catalogue.notes)


def test_a_return_is_a_dismissal_and_a_view_of_no_value_a_view(tmp_path: Path) -> None:
    """Beside an event only values below zero take it back."""
    rows = f"u,1,purchase,-1,{NOW}\nv,1,view,0,{NOW}\nw,1,view,,{NOW}\n"
    found = log_of(tmp_path, "user_id,item_id,event,value,timestamp\n" + rows).interactions
    assert found is not None
    assert found["event"].tolist() == ["dismiss", "view", "view"]
    assert found["weight"].tolist() == [1, 1, 1]
