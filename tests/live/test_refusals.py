"""Every refusal of the shop has a documented code, and every code a way to be said."""

import inspect

import pytest

from commerce import errors
from live.codes import CODES, refuse
from live.refusals import CODE_OF, as_rejected
from realtime.errors import BrokerUnavailable


def leaves() -> list[type[errors.CommerceError]]:
    classes = [
        value
        for _, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, errors.CommerceError)
    ]
    return [
        one
        for one in classes
        if one not in (errors.CommerceError, errors.Refused, errors.Temporary)
    ]


@pytest.mark.parametrize("error", leaves(), ids=lambda error: error.__name__)
def test_each_refusal_of_commerce_has_a_code(error: type[errors.CommerceError]) -> None:
    assert CODE_OF[error] in CODES


def test_what_a_person_needs_to_know_is_carried_over() -> None:
    rejected = as_rejected(errors.SoldOut("MUG-1", 2))
    assert (rejected.code, rejected.details) == ("sold_out", {"sku": "MUG-1", "left": 2})


def test_a_press_before_the_opening_says_when_to_try_again() -> None:
    rejected = as_rejected(errors.DropNotOpen(opens_at=10, retry_after_ms=750))
    assert rejected.retry_after_ms == 750
    assert rejected.details == {"opens_at": 10}


def test_temporary_refusals_carry_their_wait() -> None:
    assert as_rejected(errors.Busy(300)).retry_after_ms == 300
    assert as_rejected(BrokerUnavailable()).code == "unavailable"


def test_a_limit_without_a_sku_does_not_invent_one() -> None:
    assert as_rejected(errors.LimitReached(None, 3)).details == {"limit": 3}


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_is_a_sentence_for_a_person(code: str) -> None:
    row = CODES[code]
    assert row.sentence[0].isupper()
    assert row.sentence.endswith((".", "?"))
    assert 400 <= row.status < 600
    assert refuse(code).message == row.sentence
