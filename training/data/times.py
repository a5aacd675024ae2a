"""Timestamps as logs write them -> seconds since 1970, or the reason why a cell is none.

Numbers are seconds, milliseconds, microseconds or nanoseconds by their size; eight digits may be a date (20231114),
fourteen a date and a time. Text is a date of ISO 8601, with or without a zone (none means UTC), or `11/14/2023` where
the column itself shows which part is the month.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from training.data.rows import is_nothing

FIRST = 631_152_000  # 1990-01-01: what claims to be older is no moment of a log
DAY = 86_400
UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))  # (from, per second): nano-, micro-, milliseconds; else seconds
SERIALS = (20_000, 80_000)  # days since 1900, as Excel writes 1954 to 2119
PARTED = re.compile(r"([0-9]{1,2})([/.])([0-9]{1,2})\2([0-9]{4})(?:[ T,]+([0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?))?")

MISSING, IMPOSSIBLE, FUTURE = "missing timestamp", "impossible timestamp", "timestamp in the future"
ANCIENT = "timestamp before 1990: seconds since 1970, or dates, are expected"
SERIAL = "timestamp is an Excel serial number: export dates as text, such as 2023-11-14"
AMBIGUOUS = "timestamp may be day/month or month/day: write 2023-11-14"


@dataclass(frozen=True, slots=True)
class Times:
    """seconds: (n,) float64, NaN where there is a reason; reasons: (n,) text, "" where the cell is a moment."""

    seconds: np.ndarray
    reasons: np.ndarray


def read_times(column: pd.Series, *, now: float) -> Times:
    """now: seconds; what is later by more than a day is in the future."""
    missing = np.array([is_nothing(value) for value in column], dtype=bool)
    reasons = np.where(missing, MISSING, "").astype(object)
    if pd.api.types.is_datetime64_any_dtype(column):
        moments = pd.to_datetime(column, utc=True).to_numpy("datetime64[us]").astype(np.int64)
        seconds = np.where(missing, np.nan, moments / 1e6)
    else:
        seconds = _seconds(column, missing, reasons)
    reasons[~np.isfinite(seconds) & (reasons == "")] = IMPOSSIBLE
    with np.errstate(invalid="ignore"):
        reasons[(seconds < FIRST) & (reasons == "")] = ANCIENT
        reasons[(seconds > now + DAY) & (reasons == "")] = FUTURE
    return Times(np.where(reasons == "", seconds, np.nan), reasons)


def _seconds(column: pd.Series, missing: np.ndarray, reasons: np.ndarray) -> np.ndarray:
    """Of numbers and text; names in `reasons` what is neither."""
    given = pd.to_numeric(column, errors="coerce").to_numpy(float)
    numbers, seconds = given.copy(), given.copy()
    for least, per_second in UNITS:
        large = numbers >= least
        seconds[large] = numbers[large] / per_second
        numbers[large] = np.nan
    with np.errstate(invalid="ignore"):
        compact = ((given >= 1.9e7) & (given < 2.1e7)) | ((given >= 1.9e13) & (given < 2.1e13))
    for value in np.unique(given[compact]):
        seconds[given == value] = _compact(value)
    with np.errstate(invalid="ignore"):
        serial = (numbers >= SERIALS[0]) & (numbers < SERIALS[1])
    reasons[serial] = SERIAL
    seconds[serial] = np.nan
    texts = np.flatnonzero(np.isnan(given) & ~missing)
    if len(texts):
        seconds[texts] = _dates(column.iloc[texts], texts, reasons)
    return seconds


def _compact(value: float) -> float:
    """20231114, or 20231114221320; NaN where that is no date."""
    digits = f"{value:.0f}"
    form = "%Y%m%d" if len(digits) == 8 else "%Y%m%d%H%M%S"
    moment = pd.to_datetime(digits, format=form, errors="coerce", utc=True)
    return np.nan if pd.isna(moment) else float(moment.timestamp())


def _dates(column: pd.Series, places: np.ndarray, reasons: np.ndarray) -> np.ndarray:
    texts = column.astype(str).str.strip().str.replace(r"\s*(?:UTC|GMT|Z)$", "+00:00", regex=True)
    parted = texts.str.extract(f"^{PARTED.pattern}$")
    is_parted = parted[0].notna().to_numpy()
    found = pd.to_datetime(texts.where(~is_parted), errors="coerce", utc=True, format="ISO8601")
    seconds = (found - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(float).copy()
    for mark in ("/", "."):
        rows = np.flatnonzero(is_parted & (parted[1] == mark).to_numpy())
        if len(rows):
            _parted(parted.iloc[rows], rows, mark, seconds, places, reasons)
    return seconds


def _parted(
    parts: pd.DataFrame, rows: np.ndarray, mark: str, seconds: np.ndarray, places: np.ndarray, reasons: np.ndarray
) -> None:
    """Dates whose order the column shows: some part is larger than 12. With points the day comes first, always."""
    first, second = parts[0].astype(int).to_numpy(), parts[2].astype(int).to_numpy()
    day_first = mark == "." or bool((first > 12).any())
    month_first = mark != "." and bool((second > 12).any())
    if day_first == month_first:
        reasons[places[rows]] = AMBIGUOUS
        return
    day, month = (first, second) if day_first else (second, first)
    clock = parts[4].fillna("00:00").to_numpy(dtype=str)
    year = parts[3].to_numpy(dtype=str)
    texts = [f"{y}-{m:02d}-{d:02d} {c}" for y, m, d, c in zip(year, month, day, clock, strict=True)]
    found = pd.to_datetime(pd.Series(texts), errors="coerce", utc=True, format="ISO8601")
    seconds[rows] = (found - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(float)
