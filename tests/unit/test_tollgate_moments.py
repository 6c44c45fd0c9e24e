"""Moments as people write them."""

from datetime import UTC, datetime

import pytest

from tollgate.moments import moment_after, moment_before

NOW = datetime(2027, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-02-01", datetime(2027, 2, 1, tzinfo=UTC)),
        ("2027-02-01T01:00+02:00", datetime(2027, 1, 31, 23, tzinfo=UTC)),
        ("2027-02-01T12:30Z", datetime(2027, 2, 1, 12, 30, tzinfo=UTC)),
        ("90m", datetime(2027, 1, 31, 13, 30, tzinfo=UTC)),
        ("12h", datetime(2027, 2, 1, tzinfo=UTC)),
        ("1d", datetime(2027, 2, 1, 12, tzinfo=UTC)),
        ("1w", datetime(2027, 2, 7, 12, tzinfo=UTC)),
    ],
)
def test_dates_moments_and_spans_are_understood(text: str, moment: datetime) -> None:
    assert moment_after(text, NOW) == moment


def test_a_span_looks_back_where_the_past_is_asked_for() -> None:
    assert moment_before("24h", NOW) == datetime(2027, 1, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "tomorrow", "90", "90y", "-3d", "31.01.2027", "999999w"])
def test_anything_else_is_refused_with_the_forms_that_work(text: str) -> None:
    with pytest.raises(ValueError, match="2027-01-31"):
        moment_after(text, NOW)
