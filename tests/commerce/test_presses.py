"""A press before anybody is asked."""

from commerce.presses import fingerprint, normal
from commerce.stock import Line, Press, Promise

PROMISE = Promise("pinned", 5, 7)


def test_a_sku_named_twice_is_one_line_and_all_else_stays() -> None:
    lines = (Line("B", 1), Line("A", 2), Line("B", 3))
    press = Press("rid", "viewer", "drop", lines, retry=True, total=9, promise=PROMISE)
    assert normal(press) == Press(
        "rid",
        "viewer",
        "drop",
        (Line("A", 2), Line("B", 4)),
        retry=True,
        total=9,
        promise=PROMISE,
    )


def test_the_order_in_which_lines_are_named_makes_no_other_press() -> None:
    one, other = (
        normal(Press("rid", "viewer", "drop", lines))
        for lines in ((Line("A", 1), Line("B", 2)), (Line("B", 2), Line("A", 1)))
    )
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one) != fingerprint(Press("rid", "viewer", "drop", (Line("A", 1),)))
