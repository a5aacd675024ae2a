"""What a column holds: numbers, yes or no, one name of several (category), several names (tags), or nothing of use."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from training.data.rows import is_nothing
from training.data.tables import EXACT

NUMBER, BOOLEAN, CATEGORY, TAGS, IGNORED = "number", "boolean", "category", "tags", "ignored"
# what people and programs write for nothing; in columns that are otherwise numbers, or yes and no
NOTHING_WORDS = frozenset(("nan", "n/a", "na", "#n/a", "null", "none", "nil", "-", "--", "?", "unknown"))
NEARLY = 0.5  # share of numbers from which a column of names is said to be nearly one of numbers
LEADING_ZEROS = re.compile(r"[-+]?0[0-9]+")
MONEY = re.compile(r"[^0-9A-Za-z]?\s*[0-9][0-9.,' ]*\s*(?:[^0-9A-Za-z]|[A-Z]{3})?")


@dataclass(frozen=True, slots=True)
class Column:
    """What became of a column. why: in a sentence, "" where it is plain."""

    table: str
    name: str
    kind: str
    why: str = ""


def typed(table: str, column: pd.Series, rows: Sequence[int]) -> tuple[pd.Series, Column]:
    """Cells -> values of one kind, and which it is. rows: the number of each cell's row, for the reasons."""
    name = str(column.name)
    values = [None if is_nothing(value) else value for value in column]
    present = [value for value in values if value is not None]
    if not present:
        return _series(values, str), Column(table, name, IGNORED, "every cell is empty")
    if any(_several(value) for value in present):
        return pd.Series([_tags(v) for v in values], dtype=object), Column(table, name, TAGS)
    texts = [None if value is None else _text(value) for value in values]
    words = [None if text is None or text.lower() in NOTHING_WORDS else text for text in texts]
    said = [word for word in words if word is not None]
    gaps = f"{sum(t is not None for t in texts) - len(said)} cells such as {_gap(texts)!r} are read as nothing"
    gaps = gaps if len(said) < len(present) else ""
    if said and {word.lower() for word in said} <= {"true", "false"}:
        return _series(words, lambda word: word.lower() == "true"), Column(table, name, BOOLEAN, gaps)
    why = _kept_as_names(said)
    numbers = [None if word is None else _number(word) for word in words]
    wrong = [at for at, (word, number) in enumerate(zip(words, numbers, strict=True)) if word and number is None]
    if said and not wrong and not why:
        found = pd.Series([math.nan if number is None else number for number in numbers], dtype=float)
        return found, Column(table, name, NUMBER, "; ".join(part for part in (gaps, _thousands(said)) if part))
    if not why and len(wrong) < (1 - NEARLY) * len(said):
        at = wrong[0]
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        why = f'would be a number but for row {rows[at]}: "{words[at]}"{more}'
    elif not why and name.lower() in ("price", "amount", "cost") and all(MONEY.fullmatch(word) for word in said):
        why = f'is no number: "{said[0]}" in row {rows[wrong[0]]}; write plain numbers such as 1299.00 for ranges'
    elif not why and name.lower() == "price" and wrong:
        why = f'is no number: "{words[wrong[0]]}" in row {rows[wrong[0]]}'
    return _series(texts, str), Column(table, name, CATEGORY, why)


def as_names(column: pd.Series) -> pd.Series:
    """A column whose values are names whatever they look like."""
    return _series([None if is_nothing(value) else value for value in column], _text)


def split_tags(value: object) -> list[str]:
    """The parts of a cell `a|b|c` or of a list."""
    return _tags(None if is_nothing(value) else value)


def _kept_as_names(said: Sequence[str]) -> str:
    """Why numbers are names nevertheless, or ""."""
    zeros = next((word for word in said if LEADING_ZEROS.fullmatch(word)), None)
    if zeros is not None:
        return f'numbers with leading zeros ("{zeros}") are names'
    large = next((word for word in said if re.fullmatch(r"[-+]?[0-9]{16,}", word) and abs(int(word)) > EXACT), None)
    return f'whole numbers of more than 15 digits ("{large}") are names, kept digit for digit' if large else ""


def _thousands(said: Sequence[str]) -> str:
    """A hint where every number has three digits behind the point."""
    if len(said) > 1 and all(re.fullmatch(r"[-+]?[0-9]{1,3}\.[0-9]{3}", word) for word in said):
        return f'"{said[0]}" is read as {float(said[0]):g}; if its point parts thousands, write it without'
    return ""


def _gap(texts: Sequence[str | None]) -> str:
    return next((text for text in texts if text is not None and text.lower() in NOTHING_WORDS), "")


def _number(word: str) -> float | None:
    """A finite number, as Python and JSON write it, else None."""
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in word else None


def _text(value: object) -> str:
    """A value as it would stand in a CSV."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    return str(value).strip()


def _several(value: object) -> bool:
    return isinstance(value, list | tuple | np.ndarray) or (isinstance(value, str) and "|" in value)


def _tags(value: Any) -> list[str]:
    if value is None:
        return []
    parts = value.split("|") if isinstance(value, str) else list(value) if _several(value) else [value]
    return [_text(part) for part in parts if not is_nothing(part)]


def _series(values: Sequence[Any], convert: Callable[[Any], object]) -> pd.Series:
    return pd.Series([None if value is None else convert(value) for value in values], dtype=object)
