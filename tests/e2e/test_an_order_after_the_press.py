"""What comes after Buy, in a real browser: a declined card, money back, a parcel, the wait list.

A host in the console, a buyer on a phone, and somebody who gives a hold back. The program, its
Valkey, its database and the payment sandbox are the real ones.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.e2e.test_a_show_from_end_to_end import (
    ADDRESS,
    CARD,
    FILE,
    PHONE,
    create_show,
    go_live,
    import_products,
    pin,
    press_buy,
    sign_in,
    watch,
)
from tests.program import Program

DECLINED = "4000000000000002"
TRACKING = "JD0002"


@pytest.mark.browser
def test_an_order_is_declined_paid_refunded_in_part_shipped_and_another_is_waited_for(
    program: Program, new_context: Callable[[], BrowserContext], tmp_path: Path
) -> None:
    host, ada, grace = (new_context().new_page() for _ in range(3))
    ada.set_viewport_size(PHONE)  # type: ignore[arg-type]
    file = tmp_path / "products.csv"
    file.write_text(FILE)
    sign_in(host, program)
    import_products(host, file)
    show = create_show(host)
    address = f"{program.url}/show/{show}"
    watch(ada, address)
    go_live(host, ada)
    pin(host, ada)
    sell_all(host, ada)

    buy_two(ada)
    pay_at_the_second_try(ada)
    give_one_back(host)
    see_the_money(ada)
    ship_the_other(host)
    see_the_parcel(ada)
    ask_for_the_money_too(ada, host)
    wait_for_another(ada, grace, address)


def sell_all(host: Page, viewer: Page) -> None:
    """All three in stock, so that what comes back to stock comes back to the sale."""
    host.get_by_test_id("catalogue-item").get_by_test_id("sell").click()
    host.get_by_test_id("sell-countdown").select_option("0")
    host.get_by_test_id("sell-hold").select_option("900")
    host.get_by_test_id("sell-submit").click()
    expect(viewer.get_by_test_id("stock-left").first).to_have_attribute("data-left", "3")


def buy_two(viewer: Page) -> None:
    """Two units in one hold; one is left."""
    viewer.get_by_test_id("product-open").click()
    viewer.get_by_test_id("quantity-more").click()
    press_buy(viewer, "sheet-buy")
    expect(viewer.get_by_test_id("stock-left").first).to_have_attribute("data-left", "1")


def pay_at_the_second_try(viewer: Page) -> None:
    """A card is declined; back in the shop it is still held; at the second try another pays."""
    for name, text in ADDRESS.items():
        viewer.get_by_test_id(f"address-{name}").fill(text)
    viewer.get_by_test_id("address-country").select_option("GB")
    viewer.get_by_test_id("pay").click()
    viewer.wait_for_url(re.compile(r"/c/pay/"))
    viewer.locator(f"button[name=card][value='{DECLINED}']").click()
    expect(viewer.get_by_text("was declined")).to_be_visible()
    viewer.get_by_text("Back to the shop").click()
    viewer.wait_for_url(re.compile(r"/show/"))
    expect(viewer.get_by_test_id("hold")).to_have_attribute("data-state", "paying")
    expect(viewer.get_by_test_id("address-name")).to_have_value(ADDRESS["name"])
    viewer.get_by_test_id("pay").click()
    viewer.wait_for_url(re.compile(r"/c/pay/"))
    viewer.locator(f"button[name=card][value='{CARD}']").click()
    viewer.wait_for_url(re.compile(r"/show/"))
    expect(viewer.get_by_test_id("hold")).to_have_attribute("data-state", "sold")
    viewer.get_by_test_id("hold-order").click()
    expect(viewer.get_by_test_id("order-detail")).to_have_attribute("data-state", "paid")
    expect(viewer.get_by_test_id("progress")).to_have_attribute("data-done", "1")


def give_one_back(host: Page) -> None:
    """One of two units goes back to stock, with its money; the amount is shown before."""
    host.get_by_test_id("order-open").click()
    expect(host.get_by_test_id("customer")).to_contain_text("Ada Lovelace")
    host.get_by_test_id("do-refund").click()
    host.get_by_test_id("goods-restock").check()
    expect(host.get_by_test_id("give-back-submit")).to_be_disabled()
    host.get_by_test_id("more-0").click()
    expect(host.get_by_test_id("refund-preview")).to_have_attribute("data-amount", "4800")
    host.get_by_test_id("give-back-submit").click()
    expect(host.get_by_test_id("refund-case")).to_have_attribute("data-state", "succeeded")
    expect(host.get_by_test_id("timeline")).to_contain_text("went back")


def see_the_money(viewer: Page) -> None:
    """The buyer's open page says so, without a reload."""
    expect(viewer.get_by_test_id("my-refund")).to_have_attribute("data-state", "succeeded")
    expect(viewer.get_by_test_id("sum-refunded")).to_contain_text("48.00")
    states = viewer.get_by_test_id("my-unit")
    expect(states).to_have_count(2)
    expect(viewer.get_by_test_id("stock-left").first).to_have_attribute("data-left", "2")


def ship_the_other(host: Page) -> None:
    """The unit that is left goes out with a tracking number."""
    host.get_by_test_id("do-ship").click()
    expect(host.get_by_test_id("picked-0")).to_have_text("1")
    host.get_by_test_id("ship-carrier").fill("DHL")
    host.get_by_test_id("ship-tracking").fill(TRACKING)
    host.get_by_test_id("ship-submit").click()
    expect(host.get_by_test_id("order-file")).to_have_attribute("data-state", "shipped")


def see_the_parcel(viewer: Page) -> None:
    """And the buyer can follow it."""
    expect(viewer.get_by_test_id("my-tracking")).to_have_text(TRACKING)
    expect(viewer.get_by_test_id("progress")).to_have_attribute("data-done", "2")


def ask_for_the_money_too(viewer: Page, host: Page) -> None:
    """A wish with a reason reaches the host, who says no; the buyer reads it."""
    viewer.get_by_test_id("my-refund-ask").click()
    viewer.get_by_test_id("wish-reason").fill("It has a crack")
    viewer.get_by_test_id("wish-submit").click()
    asked = host.locator("[data-testid=refund-case][data-state=asked]")
    expect(asked).to_contain_text("It has a crack")
    asked.get_by_test_id("refund-reject").click()
    expect(viewer.locator("[data-testid=my-refund][data-state=rejected]")).to_be_visible()
    viewer.get_by_test_id("my-order-sheet-close").click()


def wait_for_another(waiting: Page, holder: Page, address: str) -> None:
    """Sold out; one waits; the holder gives two back; one is held for whoever waited."""
    watch(holder, address)
    holder.get_by_test_id("product-open").click()
    holder.get_by_test_id("quantity-more").click()
    press_buy(holder, "sheet-buy")
    waiting.get_by_test_id("wait").click()
    expect(waiting.get_by_test_id("waiting")).to_have_attribute("data-position", "1")
    holder.get_by_test_id("hold-cancel").click()
    waiting.get_by_test_id("hold-reminder").click()
    expect(waiting.get_by_test_id("hold")).to_have_attribute("data-state", "held")
    expect(waiting.get_by_test_id("stock-left").first).to_have_attribute("data-left", "1")
