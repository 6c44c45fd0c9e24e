"""Page tokens: opaque, of one listing, and refused where somebody made them up."""

import pytest

from chassis import pages
from chassis.faults import InvalidArgument

_LISTING = "entries of acct_1"


def test_a_token_leads_back_to_its_place() -> None:
    token = pages.place_token((1_700_000_000_000_000, "01a2-x"), _LISTING)
    assert pages.place_from_page_token(token, _LISTING) == (1_700_000_000_000_000, "01a2-x")
    assert pages.numbered_place_from_page_token(pages.place_token((5, 7), _LISTING), _LISTING) == (5, 7)
    assert pages.place_from_page_token("", _LISTING) is None
    assert pages.numbered_place_from_page_token("", _LISTING) is None


@pytest.mark.parametrize("key", ["x", "5", "5 ", "five id", "5.0 id", "\u0665 id", "9" * 19 + " id", "5 i\0d", " id"])
def test_a_token_that_was_made_up_with_a_right_checksum_is_refused(key: str) -> None:
    with pytest.raises(InvalidArgument, match="page_token"):
        pages.place_from_page_token(pages.page_token(key, _LISTING), _LISTING)


@pytest.mark.parametrize("key", ["5 id", "5 7.5", "5 " + "9" * 19])
def test_an_id_that_is_no_number_is_refused_where_ids_are_numbers(key: str) -> None:
    with pytest.raises(InvalidArgument, match="page_token"):
        pages.numbered_place_from_page_token(pages.page_token(key, _LISTING), _LISTING)


def test_a_token_of_another_listing_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="page_token"):
        pages.place_from_page_token(pages.place_token((5, "id"), "entries of acct_2"), _LISTING)
