"""Every way in which logs write a moment gives that moment; what may be another is refused by name."""

import numpy as np
import pandas as pd
import pytest

from training.data import times
from training.data.times import read_times

NOW = 1_750_000_000
MOMENT = 1_700_000_000  # 2023-11-14 22:13:20 UTC
DAY = 1_699_920_000  # 2023-11-14


def seconds_of(*cells: object) -> list[float]:
    return read_times(pd.Series(cells, dtype=object), now=NOW).seconds.tolist()


def reason_of(*cells: object) -> list[str]:
    return read_times(pd.Series(cells, dtype=object), now=NOW).reasons.tolist()


@pytest.mark.parametrize(
    "cell",
    ["1700000000", 1700000000, "1700000000.0", "1700000000000", "1700000000000000", "1700000000000000000",
     "2023-11-14 22:13:20 UTC", "2023-11-14T22:13:20Z", "2023-11-14 22:13:20", "2023-11-14T23:13:20+01:00",
     "2023-11-14 22:13:20.000 UTC", "20231114221320", "2023-11-14 22:13:20 GMT", " 2023-11-14 22:13:20"],
)  # fmt: skip
def test_a_moment_however_it_is_written(cell: object) -> None:
    """Seconds to nanoseconds, ISO 8601 with and without a zone, BigQuery's UTC, digits alone."""
    assert seconds_of(cell) == [MOMENT]


@pytest.mark.parametrize("cell", ["20231114", 20231114, "2023-11-14", "14.11.2023", "11/14/2023", "14/11/2023"])
def test_a_day_however_it_is_written(cell: object) -> None:
    """Where one part is larger than twelve, the other is the month."""
    assert seconds_of(cell) == [DAY]


def test_one_row_shows_the_order_for_all() -> None:
    """A column is written one way."""
    assert seconds_of("3/4/2023 10:00", "3/14/2023 10:00")[0] == pd.Timestamp("2023-03-04 10:00").timestamp()
    assert seconds_of("3/4/2023", "14/4/2023")[0] == pd.Timestamp("2023-04-03").timestamp()


def test_what_may_be_either_is_refused() -> None:
    """Nothing in the column says which is the month."""
    assert reason_of("3/4/2023", "5/6/2023") == [times.AMBIGUOUS] * 2


@pytest.mark.parametrize(
    ("cell", "reason"),
    [("45244.5", times.SERIAL), (45244, times.SERIAL), ("1", times.ANCIENT), ("-5", times.ANCIENT),
     ("1985-01-01", times.ANCIENT), ("2099-01-01", times.FUTURE), ("99999999999", times.FUTURE),
     ("20231399", times.IMPOSSIBLE), ("soon", times.IMPOSSIBLE), ("inf", times.IMPOSSIBLE), ("", times.MISSING),
     (None, times.MISSING), (np.nan, times.MISSING)],
)  # fmt: skip
def test_what_is_no_moment_of_a_log_is_refused_by_name(cell: object, reason: str) -> None:
    """Excel's serial numbers, moments before 1990, the future, words."""
    assert reason_of(cell, "1700000000") == [reason, ""]


def test_times_of_parquet_are_taken_as_they_are() -> None:
    """With a zone and without."""
    plain = pd.Series(pd.to_datetime(["2023-11-14 22:13:20", None]))
    np.testing.assert_array_equal(read_times(plain, now=NOW).seconds, [MOMENT, np.nan])
    zoned = plain.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    np.testing.assert_array_equal(read_times(zoned, now=NOW).seconds, [MOMENT, np.nan])
