"""Pressing the button of a page as a browser would."""

from loadtests.api import read_form

PAGE = """
<title>Payment (sandbox)</title>
<form method="post" action="/pay/1?a=1"><input type="hidden" name="csrf" value="x">
<input type="text" name="note"><button class="first" name="card" value="4242">Pay</button>
<button name="card" value="0002">Declined</button></form>
<form action="/other"><button name="other" value="1">Other</button></form>
"""


def test_the_first_button_of_the_first_form_is_pressed() -> None:
    form = read_form(PAGE, "http://pay.example/c/cs_1")
    assert form.address == "http://pay.example/pay/1?a=1"
    assert form.values == {"csrf": "x", "card": "4242"}
    assert form.sandbox


def test_a_form_without_an_action_is_sent_where_the_page_is() -> None:
    form = read_form("<form method=post><button name=a value=b></form>", "http://x.example/c/1")
    assert form.address == "http://x.example/c/1"


def test_a_page_that_does_not_call_itself_a_sandbox_is_none() -> None:
    assert not read_form(PAGE.replace("(sandbox)", ""), "http://pay.example/").sandbox
