"""The vault: opens with the right master, at the right place, and never otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.vault import Sealed, Vault

OLD, NEW = "the old master of thirty-two characters", "the new master of thirty-two characters"


@given(st.text(), st.text(), st.text())
def test_what_was_sealed_opens_at_its_place_alone(text: str, place: str, elsewhere: str) -> None:
    vault = Vault([OLD])
    key, wrapped = vault.new_key("p")
    sealed = vault.seal(vault.open_key("p", wrapped), text, place)
    assert vault.unseal(key, sealed, place) == text
    if elsewhere != place:
        with pytest.raises(Sealed):
            vault.unseal(key, sealed, elsewhere)


@given(st.data())
def test_nothing_that_was_changed_opens(data: st.DataObject) -> None:
    vault = Vault([OLD])
    key, wrapped = vault.new_key("p")
    sealed = vault.seal(key, "1 Long Road", "here")
    for text, open_ in (
        (sealed, lambda changed: vault.unseal(key, changed, "here")),
        (wrapped, lambda changed: vault.open_key("p", changed)),
    ):
        at = data.draw(st.integers(0, len(text) - 1))
        letter = data.draw(st.sampled_from("AQgw059+/=.x"))
        changed = text[:at] + letter + text[at + 1 :]
        if changed != text:
            with pytest.raises(Sealed):
                open_(changed)


def test_a_persons_key_is_nobody_elses() -> None:
    vault = Vault([OLD])
    _, wrapped = vault.new_key("p")
    with pytest.raises(Sealed):
        vault.open_key("q", wrapped)


def test_a_master_is_changed_while_the_shop_is_open() -> None:
    key, wrapped = Vault([OLD]).new_key("p")
    both = Vault([NEW, OLD])
    assert both.open_key("p", wrapped) == key
    assert not both.is_current(wrapped)
    renewed = both.rewrap("p", wrapped)
    assert both.is_current(renewed)
    assert Vault([NEW]).open_key("p", renewed) == key
    with pytest.raises(Sealed):
        Vault([NEW]).open_key("p", wrapped)


def test_the_same_text_is_never_sealed_the_same_way_twice() -> None:
    vault = Vault([OLD])
    key, _ = vault.new_key("p")
    assert len({vault.seal(key, "x", "here") for _ in range(50)}) == 50
