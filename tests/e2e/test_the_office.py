"""The host's pages beside the console, and what every page must be for whoever reads it.

One shop with one paid order of two units, and a receiver of webhooks that says no at first. Each
page is read by `readable.faults` in both languages, on a phone and on a desk.
"""

import csv
import io
import json
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, ViewportSize, expect

from tests.e2e.readable import faults
from tests.e2e.test_a_show_from_end_to_end import (
    ADDRESS,
    CARD,
    FILE,
    create_show,
    go_live,
    import_products,
    pin,
    sign_in,
    watch,
)
from tests.e2e.test_an_order_after_the_press import buy_two, sell_all
from tests.program import Program

DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}


class Receiver(HTTPServer):
    """One of the shop's other systems; `status` is what it answers."""

    status = 500

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class Hears(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(("127.0.0.1", 0), Hears) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def read(page: Page, *sizes: ViewportSize) -> None:
    """Nobody is kept out of the page as it is now, in either language."""
    before = page.viewport_size
    switch = page.get_by_test_id("language-switch").first
    for language in ("zh", "en"):
        # A dialog lies over the switch: a person chooses the language before.
        switch.evaluate("button => button.click()")
        expect(page.locator(f"html[lang^={language}]")).to_be_attached()
        for size in sizes or (DESK, PHONE):
            page.set_viewport_size(size)
            assert faults(page) == [], f"{page.url} in {language} at {size['width']} px"
    if before is not None:
        page.set_viewport_size(before)


def press_for_file(page: Page, testid: str) -> str:
    """The text of the file that a button saves."""
    with page.expect_download() as saved:
        page.get_by_test_id(testid).click()
    return saved.value.path().read_text(encoding="utf-8-sig")


@pytest.mark.browser
def test_what_a_host_does_after_the_show_and_everybody_can_read_it(
    program: Program,
    receiver: Receiver,
    new_context: Callable[[], BrowserContext],
    tmp_path: Path,
) -> None:
    host, ada = (new_context().new_page() for _ in range(2))
    ada.set_viewport_size(PHONE)
    file = tmp_path / "products.csv"
    file.write_text(FILE)
    sign_in(host, program)
    import_products(host, file)
    read(host)
    make_a_coupon(host, program)
    show = create_show(host)
    watch(ada, f"{program.url}/show/{show}")
    go_live(host, ada)
    pin(host, ada)
    sell_at_a_discount(host, ada)

    order = buy_at_a_discount(ada)
    see_that_the_stock_agrees(host)
    check_the_claims(host)
    find_the_order(host, program, order)
    print_the_packing_list(host)
    be_warned_of_low_stock(host, program)
    tell_another_system(host, program, receiver)
    forget_the_buyer(host, program, order)


def make_a_coupon(host: Page, program: Program) -> None:
    """With the keyboard; what is wrong is said, and a change keeps what it does not touch."""
    home = host.url
    host.goto(f"{program.url}/host#office")
    host.get_by_test_id("coupon-new").press("Enter")
    host.get_by_test_id("coupon-code").fill("ten off")
    host.get_by_test_id("coupon-title").fill("Ten for you")
    host.get_by_test_id("coupon-value").fill("10")
    host.get_by_test_id("coupon-value").press("Enter")
    expect(host.get_by_test_id("coupon-wrong")).to_have_attribute("data-why", "code")
    expect(host.get_by_test_id("coupon-code")).to_be_focused()
    read(host)
    host.get_by_test_id("coupon-code").fill("ten-off")
    host.get_by_test_id("coupon-code").press("Enter")
    row = host.get_by_test_id("coupon-row")
    expect(row).to_have_attribute("data-code", "TEN-OFF")
    row.press("Enter")
    expect(host.get_by_test_id("coupon-value")).to_have_value("10")
    host.get_by_test_id("coupon-uses").fill("7")
    host.get_by_test_id("coupon-save").click()
    expect(row).to_contain_text("−10 % · 0 of 7 used")
    read(host)
    host.goto(home)


def sell_at_a_discount(host: Page, ada: Page) -> None:
    """The discount is set before anybody has reserved; the buyer sees it before paying."""
    sell_all(host, ada)
    host.get_by_test_id("discount-edit").click()
    host.get_by_test_id("discount-title").fill("Tonight only")
    host.get_by_test_id("discount-value").fill("200")
    host.get_by_test_id("discount-save").click()
    expect(host.get_by_test_id("discount-wrong")).to_be_visible()
    host.get_by_test_id("discount-value").fill("12.5")
    host.get_by_test_id("discount-save").click()
    expect(host.get_by_test_id("drop-discount")).to_contain_text("Tonight only")
    ada.get_by_test_id("comment-input").fill("Is it heavy?")
    ada.get_by_test_id("comment-send").click()
    expect(host.get_by_test_id("comment")).to_contain_text("Is it heavy?")
    read(host)
    read(ada)


def buy_at_a_discount(ada: Page) -> str:
    """What the sheet says before paying is what the order comes to; the order's id."""
    buy_two(ada)
    expect(ada.get_by_test_id("line-discount")).to_contain_text("12.00")
    expect(ada.get_by_test_id("lines-total")).to_contain_text("84.00")
    expect(ada.get_by_test_id("pay")).to_contain_text("84.00")
    expect(ada.get_by_test_id("hold-rule")).to_be_visible()
    read(ada)
    for name, text in ADDRESS.items():
        ada.get_by_test_id(f"address-{name}").fill(text)
    ada.get_by_test_id("address-country").select_option("GB")
    use_the_coupon(ada)
    ada.get_by_test_id("pay").click()
    ada.wait_for_url(re.compile(r"/c/pay/"))
    ada.locator(f"button[name=card][value='{CARD}']").click()
    ada.wait_for_url(re.compile(r"/show/"))
    expect(ada.get_by_test_id("hold")).to_have_attribute("data-state", "sold")
    ada.get_by_test_id("hold-order").click()
    detail = ada.get_by_test_id("order-detail")
    expect(detail).to_have_attribute("data-state", "paid")
    expect(ada.get_by_test_id("sum-step")).to_contain_text(["Tonight only", "Ten for you"])
    expect(ada.get_by_test_id("sum-total")).to_contain_text("75.60")
    expect(ada.get_by_test_id("customer")).to_contain_text("United Kingdom")
    read(ada)
    with ada.expect_popup() as opened:
        ada.get_by_test_id("my-receipt").click()
    receipt = opened.value
    expect(receipt.locator("tfoot")).to_contain_text("75.60 EUR")
    assert faults(receipt) == []
    receipt.close()
    return detail.get_attribute("data-order") or ""


def use_the_coupon(ada: Page) -> None:
    """A wrong code costs nothing that was typed; back from the payment its price stands."""
    ada.get_by_test_id("coupon-have").focus()
    ada.keyboard.press("Enter")
    ada.get_by_test_id("coupon-code").fill("ten-of")
    ada.get_by_test_id("pay").click()
    expect(ada.get_by_test_id("coupon-refused")).to_have_attribute("data-reason", "unknown")
    expect(ada.get_by_test_id("coupon-code")).to_be_focused()
    expect(ada.get_by_test_id("coupon-code")).to_have_value("ten-of")
    expect(ada.get_by_test_id("address-name")).to_have_value(ADDRESS["name"])
    read(ada)
    ada.get_by_test_id("coupon-code").fill("ten-off")
    ada.get_by_test_id("pay").click()
    ada.wait_for_url(re.compile(r"/c/pay/"))
    ada.get_by_text("Back to the shop").click()
    ada.wait_for_url(re.compile(r"/show/"))
    expect(ada.get_by_test_id("line-discount")).to_contain_text("12.00")
    expect(ada.get_by_test_id("line-coupon")).to_contain_text("8.40")
    expect(ada.get_by_test_id("pay")).to_contain_text("75.60")
    expect(ada.get_by_test_id("coupon-have")).to_be_hidden()


def see_that_the_stock_agrees(host: Page) -> None:
    """The verdict is a word, and why it is so can be read by whoever cannot point at it."""
    light = host.get_by_test_id("stock-light")
    expect(light).to_have_attribute("data-state", "green")
    light.locator("summary").focus()
    host.keyboard.press("Enter")
    expect(host.get_by_test_id("stock-why")).to_contain_text("agree")
    assert faults(host) == []
    host.keyboard.press("Enter")
    expect(host.get_by_test_id("stock-why")).to_be_hidden()

    def red(route: object) -> None:
        verdict = {"light": "red", "reason": "differs", "count": 1, "checked": 1}
        wrong = {"key": "VASE-1", "found": 1, "expected": 2}
        route.fulfill(json={**verdict, "differences": [wrong]})  # type: ignore[attr-defined]

    host.route("**/api/v1/stock-check", red)
    expect(light).to_have_attribute("data-state", "red")
    expect(host.get_by_test_id("stock-why")).to_contain_text("VASE-1")
    read(host)
    host.unroute("**/api/v1/stock-check")


def check_the_claims(host: Page) -> None:
    """Of one sale, which was paid; the numbers are in order."""
    host.get_by_test_id("claims-check").click()
    expect(host.get_by_test_id("claims-report")).to_have_attribute("data-ok", "true")
    claims = list(csv.DictReader(io.StringIO(press_for_file(host, "claims-file"))))
    assert [one["what"] for one in claims if one["what"] == "sold"] == ["sold"]


def find_the_order(host: Page, program: Program, order: str) -> None:
    """By a filter and by words; the file of the table has what the table has."""
    host.goto(f"{program.url}/host#orders")
    row = host.get_by_test_id("order-row")
    expect(row).to_have_count(1)
    host.get_by_test_id("orders-state").select_option("cancelled")
    expect(host.get_by_test_id("orders-none")).to_be_visible()
    host.get_by_test_id("orders-state").select_option("paid")
    host.get_by_test_id("orders-search").fill("night vase")
    expect(row).to_have_attribute("data-order", order)
    rows = list(csv.DictReader(io.StringIO(press_for_file(host, "orders-csv"))))
    assert [one["order"] for one in rows] == [order]
    row.click()
    expect(host.get_by_test_id("timeline")).to_contain_text("The order is paid")
    host.get_by_test_id("timeline-books").check()
    expect(host.get_by_test_id("timeline")).to_contain_text("Sales")
    read(host)
    host.get_by_test_id("do-cancel").click()
    expect(host.get_by_test_id("refund-preview")).to_have_attribute("data-amount", "7560")
    read(host)
    host.get_by_test_id("give-back-close").click()


def print_the_packing_list(host: Page) -> None:
    """On paper there is the list, and nothing that only makes sense on a screen."""
    host.get_by_test_id("orders-show").select_option(index=1)
    host.get_by_test_id("to-packing").click()
    expect(host.get_by_test_id("parcel")).to_contain_text("United Kingdom")
    parcels = list(csv.DictReader(io.StringIO(press_for_file(host, "packing-csv"))))
    assert [(one["sku"], one["quantity"]) for one in parcels] == [("VASE-1", "2")]
    read(host)
    host.emulate_media(media="print")
    expect(host.get_by_test_id("parcel")).to_be_visible()
    expect(host.get_by_test_id("packing-print")).to_be_hidden()
    expect(host.get_by_test_id("sign-out")).to_be_hidden()
    host.emulate_media(media="screen")


def be_warned_of_low_stock(host: Page, program: Program) -> None:
    """A new threshold counts at once; the books of both sides agree."""
    host.goto(f"{program.url}/host#office")
    expect(host.get_by_test_id("low-row")).to_have_count(1)
    host.get_by_test_id("terms-low").fill("0")
    host.get_by_test_id("terms-save").click()
    expect(host.get_by_test_id("low-row")).to_have_count(0)
    host.get_by_test_id("terms-low").fill("1")
    host.get_by_test_id("terms-save").click()
    expect(host.get_by_test_id("low-row")).to_have_attribute("data-sku", "VASE-1")
    host.get_by_test_id("books-run").click()
    expect(host.get_by_test_id("books-report")).to_have_attribute("data-fine", "true")
    read(host)


def tell_another_system(host: Page, program: Program, receiver: Receiver) -> None:
    """What was given up is a dead letter, and a host sends it again."""
    host.goto(f"{program.url}/host#webhooks")
    host.get_by_test_id("webhook-url").fill(receiver.url)
    host.get_by_test_id("webhook-add-submit").click()
    hook = host.get_by_test_id("webhook")
    host.get_by_test_id("webhook-test").click()
    expect(hook).to_have_attribute("data-health", "pending")
    host.get_by_test_id("webhook-deliveries").click()
    expect(host.get_by_test_id("delivery")).to_contain_text("2 tries")
    # The three days after which it gives up are not waited for. The third try is minutes away.
    with closing(sqlite3.connect(program.folder / "vitrine.db", timeout=60)) as database, database:
        database.execute("UPDATE webhook_delivery SET state = 'dead'")
    expect(hook).to_have_attribute("data-health", "dead")
    expect(host.get_by_test_id("delivery")).to_have_attribute("data-state", "dead")
    host.get_by_test_id("delivery").locator("summary").click()
    expect(host.get_by_test_id("delivery-body")).to_contain_text("webhook.test")
    host.get_by_test_id("webhook-secret").click()
    expect(host.get_by_test_id("webhook-secret-text")).to_contain_text("whsec_")
    read(host)
    receiver.status = 200
    host.get_by_test_id("webhook-replay-all").click()
    expect(hook).to_have_attribute("data-health", "well")
    expect(host.get_by_test_id("delivery")).to_have_attribute("data-state", "delivered")


def forget_the_buyer(host: Page, program: Program, order: str) -> None:
    """A copy for whoever asks; forgetting is refused while a parcel is owed, unless meant."""
    host.goto(f"{program.url}/host#orders&order={order}")
    held = json.loads(press_for_file(host, "buyer-data-take"))
    assert "Ada Lovelace" in json.dumps(held)
    host.get_by_test_id("buyer-data-forget").click()
    read(host)
    host.get_by_test_id("buyer-data-confirm").click()
    expect(host.get_by_test_id("buyer-data-under-way")).to_be_visible()
    expect(host.get_by_test_id("buyer-data-confirm")).to_be_disabled()
    host.get_by_test_id("buyer-data-force").check()
    host.get_by_test_id("buyer-data-confirm").click()
    expect(host.get_by_test_id("customer-none")).to_be_visible()
    expect(host.get_by_test_id("order-file")).to_have_attribute("data-state", "paid")
