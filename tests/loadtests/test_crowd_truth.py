"""The laws that need everybody's eyes, each broken once."""

from loadtests.crowd_truth import STALE_S, CrowdTruth


def test_the_same_version_with_another_value_is_wrong() -> None:
    truth = CrowdTruth()
    assert truth.see("e", "likes", 4, 40, 0.0) == ""
    assert truth.see("e", "likes", 4, 40, 0.1) == ""
    assert "40" in truth.see("e", "likes", 4, 41, 0.2)
    assert truth.see("another epoch", "likes", 4, 41, 0.2) == ""


def test_a_value_is_stale_when_something_newer_was_seen_long_ago() -> None:
    truth = CrowdTruth()
    truth.see("e", "stock:A", 5, 1, now_s=10.0)
    old = {"stock:A": (4, 2)}
    assert truth.stale("e", old, now_s=10.0 + STALE_S) == ""
    assert "stock:A" in truth.stale("e", old, now_s=10.1 + STALE_S)
    assert truth.stale("e", {"stock:A": (5, 1)}, now_s=99.0) == ""


def test_stock_may_rise_by_what_was_taken_and_no_more() -> None:
    truth = CrowdTruth()
    truth.press("A", 1)
    truth.press("A", 1)
    truth.refused("A", 1)
    truth.see("e", "stock:A", 1, 3, 0.0)
    truth.see("e", "stock:A", 2, 2, 0.0)
    assert truth.see("e", "stock:A", 3, 3, 0.0) == ""
    assert "rose by 2" in truth.see("e", "stock:A", 4, 4, 0.0)


def test_a_rise_is_nobodys_fault_where_others_change_the_stock() -> None:
    truth = CrowdTruth(strict=False)
    truth.see("e", "stock:A", 1, 0, 0.0)
    assert truth.see("e", "stock:A", 2, 5, 0.0) == ""


def test_stock_below_zero_is_wrong() -> None:
    assert "stock -1" in CrowdTruth(strict=False).see("e", "stock:A", 1, -1, 0.0)


def test_a_late_sight_of_an_old_version_changes_nothing() -> None:
    truth = CrowdTruth()
    truth.see("e", "stock:A", 5, 1, 0.0)
    truth.see("e", "stock:A", 4, 2, 0.0)
    assert truth.newest["e", "stock:A"].value == 1
    assert truth.risen == {}
