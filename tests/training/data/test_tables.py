"""CSV as spreadsheets and people write it, and Parquet as pandas does."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.errors import CatalogueError
from tests.training.data.folders import ITEMS, NOW, folder_of
from training.data.catalogue_reader import inspect, read


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    """Both formats give one catalogue; lists in Parquet are tags."""
    folder = folder_of(tmp_path)
    table = pd.DataFrame({"item_id": [7, 8], "category": ["a", None], "tags": [["x", "y"], []], "price": [1.0, None]})
    table.to_parquet(folder / "items.parquet")
    catalogue = read(folder)
    assert catalogue.items["item_id"].tolist() == ["7", "8"]
    assert catalogue.kinds == {"category": "category", "tags": "tags", "price": "number"}


def test_rows_of_the_wrong_length_are_counted(tmp_path: Path) -> None:
    """A broken line of a CSV is one unusable row, not the end."""
    log = f"user_id,item_id,event,timestamp\nu,1,view,{NOW}\nu,1,view\nu,2,view,{NOW}\n"
    folder = folder_of(tmp_path, items__csv=ITEMS, interactions__csv=log)
    assert read(folder, now=NOW).unusable_by_reason() == {("interactions", "4 cells expected, 3 found"): 1}


@pytest.mark.parametrize(
    ("header", "message"),
    [("item_id,colour,colour", "'colour' more than once .columns 2 and 3."), ("id,title,x", "no column item_id")],
)
def test_a_header_that_cannot_be_meant_is_refused(tmp_path: Path, header: str, message: str) -> None:
    """It names the column."""
    with pytest.raises(CatalogueError, match=message):
        read(folder_of(tmp_path, items__csv=f"{header}\n1,a,b\n"))


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
