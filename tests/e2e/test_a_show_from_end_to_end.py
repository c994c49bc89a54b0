"""The trip of README, "A show from end to end", step by step, in a real browser.

Two people with browsers of their own: a host at a desk, a viewer on a phone. The program, its
Valkey, its database and the payment sandbox are the real ones.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.e2e.readable import faults
from tests.program import Program

PHONE = {"width": 390, "height": 844}
FILE = (
    "Handle,Title,Body (HTML),Option1 Name,Option1 Value,Variant SKU,Variant Inventory Qty,"
    "Variant Inventory Tracker,Variant Inventory Policy,Variant Price,Image Src\n"
    'night-vase,Night Vase,"<p>Glazed twice.</p>",Title,Default Title,VASE-1,3,shopify,deny,'
    "48.00,/static/media/products/vase.svg\n"
)
ADDRESS = {
    "name": "Ada Lovelace",
    "email": "ada@example.org",
    "line1": "12 St James's Square",
    "city": "London",
    "postcode": "SW1Y 4JH",
}
CARD = "4242424242424242"
TEMPORARY = ("hold_ended", "unavailable", "busy")
PRESSES_MAX = 5


@pytest.mark.browser
def test_a_show_from_end_to_end(
    program: Program, new_context: Callable[[], BrowserContext], tmp_path: Path
) -> None:
    host, viewer = new_context().new_page(), new_context().new_page()
    viewer.set_viewport_size(PHONE)  # type: ignore[arg-type]
    file = tmp_path / "products.csv"
    file.write_text(FILE)

    sign_in(host, program)
    import_products(host, file)
    show = create_show(host)
    watch(viewer, f"{program.url}/show/{show}")
    go_live(host, viewer)
    pin(host, viewer)
    say_hello(host, viewer)
    sell_three(host, viewer)
    buy(viewer)
    pay(viewer)
    see_the_order(host)
    for page in (host, viewer):
        assert faults(page) == []


def sign_in(host: Page, program: Program) -> None:
    """1. The host opens the one-time link and is signed in."""
    host.goto(program.host_link)
    expect(host.get_by_test_id("new-show")).to_be_visible()
    assert "link=" not in host.url


def import_products(host: Page, file: Path) -> None:
    """2. The host imports the shop's product file and reads the report."""
    host.get_by_test_id("import-file").set_input_files(file)
    host.get_by_test_id("import-currency").fill("EUR")
    host.get_by_test_id("import-submit").click()
    expect(host.get_by_test_id("import-report")).to_contain_text("Night Vase")


def create_show(host: Page) -> str:
    """3a. The host creates a show and opens its console."""
    host.get_by_test_id("new-show-title").fill("Vases by night")
    host.get_by_test_id("new-show-submit").click()
    expect(host.get_by_test_id("console")).to_be_visible()
    link = host.get_by_test_id("open-viewer").get_attribute("href") or ""
    found = re.search(r"/show/([\w-]+)", link)
    assert found is not None, link
    return found.group(1)


def watch(viewer: Page, address: str) -> None:
    """3b. The viewer opens the page on a phone, before the show begins."""
    viewer.goto(address)
    expect(viewer.get_by_test_id("show-title")).to_have_text("Vases by night")


def go_live(host: Page, viewer: Page) -> None:
    """3c. The host goes live, and the waiting viewer's page says so."""
    host.get_by_test_id("go-live").click()
    expect(host.get_by_test_id("pause")).to_be_visible()
    expect(viewer.get_by_test_id("show-state")).to_have_attribute("data-state", "live")


def pin(host: Page, viewer: Page) -> None:
    """4. The host pins a product; it appears on the viewer's page with its price."""
    host.get_by_test_id("catalogue-item").get_by_test_id("pin").click()
    expect(viewer.get_by_test_id("product-title")).to_have_text("Night Vase")
    expect(viewer.get_by_test_id("price")).to_contain_text("48.00")


def say_hello(host: Page, viewer: Page) -> None:
    """5. The viewer says hello; the host sees it."""
    viewer.get_by_test_id("comment-input").fill("Hello from London")
    viewer.get_by_test_id("comment-send").click()
    expect(host.get_by_test_id("comment")).to_contain_text("Hello from London")


def sell_three(host: Page, viewer: Page) -> None:
    """6. The host opens a sale of three units; the counter stands at three for everybody."""
    host.get_by_test_id("catalogue-item").get_by_test_id("sell").click()
    host.get_by_test_id("sell-units-VASE-1").fill("3")
    host.get_by_test_id("sell-countdown").select_option("10")
    host.get_by_test_id("sell-hold").select_option("900")
    host.get_by_test_id("sell-submit").click()
    expect(viewer.get_by_test_id("buy").first).to_have_attribute("data-phase", "opens")
    expect(viewer.get_by_test_id("buy").first).to_have_attribute("data-phase", "open")
    expect(viewer.get_by_test_id("stock-left").first).to_have_attribute("data-left", "3")


def buy(viewer: Page) -> None:
    """7. The viewer presses Buy, gets a hold with a visible deadline, and two are left."""
    press_buy(viewer, "buy")
    expect(viewer.get_by_test_id("hold-countdown")).to_contain_text(re.compile(r"\d:\d\d"))
    expect(viewer.get_by_test_id("stock-left").first).to_have_attribute("data-left", "2")


def press_buy(viewer: Page, button: str) -> None:
    """Until there is a hold. On a machine that stands still for seconds a press is answered too
    late: it is taken back and the page says so. Then a person presses again, and so does this."""
    hold, trouble = viewer.get_by_test_id("hold"), viewer.get_by_test_id("trouble")
    for _ in range(PRESSES_MAX):
        viewer.get_by_test_id(button).first.click()
        expect(hold.or_(trouble)).to_be_visible()
        if hold.is_visible():
            break
        assert trouble.get_attribute("data-code") in TEMPORARY
        viewer.get_by_test_id("trouble-dismiss").click()
    expect(hold).to_have_attribute("data-state", "held")


def pay(viewer: Page) -> None:
    """8. The viewer types an address, pays with a test card, and comes back to "paid"."""
    for name, text in ADDRESS.items():
        viewer.get_by_test_id(f"address-{name}").fill(text)
    viewer.get_by_test_id("address-country").select_option("GB")
    viewer.get_by_test_id("pay").click()
    viewer.wait_for_url(re.compile(r"/c/pay/"))
    viewer.locator(f"button[name=card][value='{CARD}']").click()
    viewer.wait_for_url(re.compile(r"/show/"))
    expect(viewer.get_by_test_id("hold")).to_have_attribute("data-state", "sold")


def see_the_order(host: Page) -> None:
    """9. The host sees the paid order."""
    order = host.get_by_test_id("order")
    expect(order).to_contain_text("Night Vase")
    expect(order).to_have_attribute("data-state", "paid")
