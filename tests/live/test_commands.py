"""Viewers and hosts over the real wire, on a whole node with real engines."""

import asyncio
import random

import pytest
from sqlalchemy import update

from commerce.database_sql import Database
from commerce.raffle import commitment, ranking
from commerce.schema_sql import sale_drop
from live.shows import ShowState
from loadtests.client import new_rid
from loadtests.refused import Refused
from loadtests.shopper import Host, Shopper
from tests.live.conftest import Node

CSV = (
    "Handle,Title,Option1 Name,Option1 Value,Variant SKU,Variant Inventory Qty,"
    "Variant Inventory Tracker,Variant Inventory Policy,Variant Price\n"
    "mug,Mug,Size,Small,MUG-S,3,shopify,deny,12.50\n"
    "mug,,,Large,MUG-L,5,shopify,deny,15.00\n"
)


def rid(seed: int = 0) -> str:
    return new_rid(1_800_000_000_000 + seed, random.Random(seed))


async def code_of(attempt: object) -> str:
    with pytest.raises(Refused) as refused:
        await attempt  # type: ignore[misc]
    return refused.value.code


@pytest.fixture
async def show(node: Node) -> str:
    """A show with two SKUs in the catalogue: MUG-S (3 units) and MUG-L (5)."""
    async with node.api(node.host_token) as api:
        await api.send_csv("/api/v1/imports?currency=EUR", CSV)
        made = await api.call("POST", "/api/v1/shows", {"title": "Mugs tonight"})
    return str(made["id"])


@pytest.fixture
async def product(node: Node, show: str) -> str:
    async with node.api() as api:
        return str((await api.get("/api/v1/products"))["products"][0]["id"])


async def open_sale(host: Host, **more: object) -> str:
    answer = await host.act("open_drop", **{"lines": [{"sku": "MUG-S"}], **more})
    return str(answer["drop"])


async def test_a_guest_joins_and_sees_the_show(node: Node, show: str) -> None:
    async with node.viewer(show) as ada:
        await ada.wait_for(lambda: "show" in ada.room.facts, what="the show")
        assert ada.room.facts["show"]["title"] == "Mugs tonight"
        assert ada.room.facts["show"]["state"] == "scheduled"


async def test_a_join_needs_a_good_token_and_a_known_show(node: Node, show: str) -> None:
    for token, expected in (("", "token_missing"), ("forged", "token_invalid")):
        somebody = Shopper(node.url, show, token)
        assert await code_of(somebody.join()) == expected
        await somebody.close()
    lost = node.viewer("s_nowhere")
    assert await code_of(lost.join()) == "unknown_show"
    await lost.close()


async def test_commands_before_the_join_are_refused_and_a_refused_join_may_be_repeated(
    node: Node, show: str
) -> None:
    ada = node.viewer(show)
    await ada.connect()
    assert await code_of(ada.command("like", n=1)) == "not_joined"
    assert await code_of(ada.command("join", show="s_nowhere", token=node.token())) == (
        "unknown_show"
    )
    answer = await ada.command("join", show=show, token=node.token())
    assert answer["you"] == {"id": "g_ada", "name": "Ada", "role": "guest"}
    assert await code_of(ada.command("join", show=show, token=node.token())) == "already_joined"
    await ada.close()


async def test_what_one_says_everybody_hears(node: Node, show: str) -> None:
    async with node.viewer(show) as ada, node.viewer(show, "g_bob", "Bob") as bob:
        offset = await ada.comment("  hello\n there ")
        await bob.wait_for(lambda: offset in dict(bob.room.comments), what="the comment")
        heard = dict(bob.room.comments)[offset]
        assert heard["text"] == "hello there"
        assert heard["by"] == {"id": "g_ada", "name": "Ada", "role": "guest"}


async def test_a_repeated_comment_is_one_comment(node: Node, show: str) -> None:
    async with node.viewer(show) as ada:
        first = await ada.command("comment", text="once", rid=rid())
        await ada.wait_for(lambda: first["offset"] in dict(ada.room.comments), what="it")
        again = await ada.command("comment", text="once", rid=rid())
        assert again == first
        other = ada.command("comment", text="something else", rid=rid())
        assert await code_of(other) == "rid_conflict"
        assert len(ada.room.comments) == 1


async def test_bad_comments_are_refused_with_their_reason(node: Node, show: str) -> None:
    async with node.viewer(show) as ada:
        assert await code_of(ada.comment("   ")) == "comment_empty"
        assert await code_of(ada.comment("x" * 301)) == "comment_too_long"
        assert await code_of(ada.comment("4242 4242 4242 4242")) == "card_number"


async def test_a_viewer_may_not_run_the_show(node: Node, show: str) -> None:
    async with node.viewer(show) as ada:
        assert await code_of(ada.command("take_console")) == "forbidden"
        assert await code_of(ada.command("go_live", fence=1, n=1)) == "forbidden"


async def test_going_live_pausing_and_ending_is_seen_by_viewers(node: Node, show: str) -> None:
    async with node.host(show) as host, node.viewer(show) as ada:
        await host.take_console()
        for command, state in (("go_live", "live"), ("pause", "paused"), ("go_live", "live")):
            await host.act(command)
            await ada.wait_for(
                lambda state=state: ada.room.facts["show"]["state"] == state, what=state
            )
        assert await code_of(host.act("go_live")) == "wrong_state"
        await host.act("end")
        await ada.wait_for(lambda: ada.room.facts["show"]["state"] == "ended", what="the end")
        assert await code_of(host.act("go_live")) == "show_ended"
        assert await code_of(ada.comment("still here")) == "show_ended"
    assert (await node.app.shows.get(show)).state is ShowState.ENDED


async def test_a_pinned_product_is_seen_with_its_price_and_goes_away(
    node: Node, show: str, product: str
) -> None:
    async with node.host(show) as host, node.viewer(show) as ada:
        await host.take_console()
        await host.act("pin_product", product=product)
        await ada.wait_for(lambda: ada.room.facts.get("pin"), what="the pin")
        pin = ada.room.facts["pin"]
        assert pin["title"] == "Mug"
        assert [sku["price"]["amount"] for sku in pin["skus"]] == [1250, 1500]
        await ada.wait_for(lambda: ada.room.states.get("stock:MUG-S"), what="its stock")
        assert ada.room.states["stock:MUG-S"][1] == 3
        await host.act("unpin_product")
        await ada.wait_for(lambda: not ada.room.facts.get("pin"), what="no pin")
        assert await code_of(host.act("pin_product", product="p_none")) == "unknown_product"


async def test_an_old_console_cannot_act_and_is_told(node: Node, show: str) -> None:
    async with node.host(show) as old, node.host(show) as new:
        await old.take_console()
        await old.act("announce", text="from the old one")
        await new.take_console()
        assert await code_of(old.act("announce", text="too late")) == "console_taken"
        await new.act("announce", text="from the new one")
        await old.wait_for(
            lambda: old.room.facts["announcement"]["text"] == "from the new one", what="the line"
        )


async def test_an_action_that_was_carried_out_is_not_carried_out_again(
    node: Node, show: str
) -> None:
    async with node.host(show) as host:
        await host.take_console()
        await host.act("announce", text="first")
        await host.act("announce", text="second")
        for n in (1, 2):
            again = host.command("announce", text="replayed", fence=host.fence, n=n)
            assert await code_of(again) == "replayed_action"
        assert host.room.facts["announcement"]["text"] == "second"


async def test_a_console_that_comes_back_keeps_its_fence(node: Node, show: str) -> None:
    async with node.host(show) as host:
        await host.take_console()
        await host.act("announce", text="before")
        fence = host.fence
        await host.cut()
        assert (await host.join())["console"] == {"fence": fence}
        answer = await host.command("take_console", fence=fence)
        assert answer == {"fence": fence, "n": 1}


async def test_three_units_are_sold_to_three_and_counted_down_for_all(
    node: Node, show: str
) -> None:
    async with node.host(show) as host, node.viewer(show, "g_watch") as watcher:
        await host.take_console()
        await host.act("go_live")
        drop = await open_sale(host)
        buyers = [node.viewer(show, f"g_{n}") for n in range(5)]
        for buyer in buyers:
            await buyer.join()
        answers = await asyncio.gather(
            *(buyer.buy(drop, [("MUG-S", 1)]) for buyer in buyers), return_exceptions=True
        )
        held = [one for one in answers if isinstance(one, dict)]
        refused = [one.code for one in answers if isinstance(one, Refused)]
        assert len(held) == 3
        assert refused == ["sold_out", "sold_out"]
        assert all(one["total"] == {"amount": 1250, "currency": "EUR"} for one in held)
        await watcher.wait_for(
            lambda: watcher.room.states.get("stock:MUG-S", (0, None))[1] == 0, what="none left"
        )
        await watcher.wait_for(
            lambda: watcher.room.facts[f"drop:{drop}"]["state"] == "sold_out", what="sold out"
        )
        winner = buyers[next(i for i, one in enumerate(answers) if isinstance(one, dict))]
        await winner.command("cancel", rid=held[0]["rid"])
        await watcher.wait_for(
            lambda: watcher.room.states["stock:MUG-S"][1] == 1, what="the unit back"
        )
        await watcher.wait_for(
            lambda: watcher.room.facts[f"drop:{drop}"]["state"] == "open", what="open again"
        )
        for buyer in buyers:
            await buyer.close()


async def test_the_same_press_twice_is_one_hold_and_another_body_is_a_conflict(
    node: Node, show: str
) -> None:
    async with node.host(show) as host, node.viewer(show) as ada:
        await host.take_console()
        await host.act("go_live")
        drop = await open_sale(host)
        one, two = await asyncio.gather(
            ada.buy(drop, [("MUG-S", 1)], rid=rid()),
            ada.buy(drop, [("MUG-S", 1)], rid=rid(), retry=True),
        )
        assert one == two
        other = ada.buy(drop, [("MUG-S", 2)], rid=rid(), retry=True)
        assert await code_of(other) == "rid_conflict"
        assert (await node.app.trade.checkout.stock_row("MUG-S")).held == 1


@pytest.mark.parametrize("quantity", [0, -1, 100, 10**18])
async def test_absurd_quantities_are_refused_and_hold_nothing(
    node: Node, show: str, quantity: int
) -> None:
    async with node.host(show) as host, node.viewer(show) as ada:
        await host.take_console()
        await host.act("go_live")
        drop = await open_sale(host)
        assert await code_of(ada.buy(drop, [("MUG-S", quantity)])) == "bad_quantity"
        assert (await node.app.trade.checkout.stock_row("MUG-S")).held == 0


async def test_pressing_before_the_opening_says_when(node: Node, show: str) -> None:
    async with node.host(show) as host, node.viewer(show) as ada:
        await host.take_console()
        await host.act("go_live")
        drop = await open_sale(host, countdown_s=600)
        with pytest.raises(Refused) as refused:
            await ada.buy(drop, [("MUG-S", 1)])
        assert refused.value.code == "drop_not_open"
        assert refused.value.retry_after_ms is not None
        await host.act("close_drop", drop=drop)
        assert await code_of(ada.buy(drop, [("MUG-S", 1)])) == "drop_closed"
        assert await code_of(ada.buy("d_none", [("MUG-S", 1)])) == "unknown_drop"


async def test_a_price_that_the_page_did_not_show_is_not_charged(node: Node, show: str) -> None:
    async with node.host(show) as host, node.viewer(show) as ada:
        await host.take_console()
        await host.act("go_live")
        drop = await open_sale(host)
        with pytest.raises(Refused) as refused:
            await ada.buy(drop, [("MUG-S", 2)], total=2400)
        assert refused.value.code == "price_changed"
        assert (await ada.buy(drop, [("MUG-S", 2)], total=2500))["state"] == "held"


async def test_a_drop_of_two_units_sells_two_of_five(node: Node, show: str) -> None:
    async with node.host(show) as host, node.viewer(show) as ada:
        await host.take_console()
        await host.act("go_live")
        drop = await open_sale(host, lines=[{"sku": "MUG-L", "units": 2}])
        await ada.wait_for(
            lambda: ada.room.states.get("stock:MUG-L", (0, None))[1] == 2, what="two to sell"
        )
        await ada.buy(drop, [("MUG-L", 2)])
        async with node.viewer(show, "g_bob") as bob:
            assert await code_of(bob.buy(drop, [("MUG-L", 1)])) == "sold_out"


async def test_stock_is_adjusted_but_never_below_what_is_held(node: Node, show: str) -> None:
    async with node.host(show) as host, node.viewer(show) as ada:
        await host.take_console()
        await host.act("go_live")
        drop = await open_sale(host)
        await ada.buy(drop, [("MUG-S", 2)])
        with pytest.raises(Refused) as refused:
            await host.act("adjust_stock", sku="MUG-S", delta=-2)
        assert refused.value.code == "stock_held"
        assert refused.value.details == {"on_hand": 3, "held": 2, "committed": 0}
        answer = await host.act("adjust_stock", sku="MUG-S", delta=4)
        assert (answer["sku"], answer["on_hand"], answer["available"]) == ("MUG-S", 7, 5)
        await ada.wait_for(lambda: ada.room.states["stock:MUG-S"][1] == 5, what="five left")


async def test_a_retracted_comment_is_gone_for_all_and_for_later_joins(
    node: Node, show: str
) -> None:
    async with node.host(show) as host, node.viewer(show) as ada:
        await host.take_console()
        offset = await ada.comment("something rude")
        await host.wait_for(lambda: offset in dict(host.room.comments), what="the comment")
        await host.act("retract", comment=offset)
        await ada.wait_for(lambda: offset not in dict(ada.room.comments), what="its retraction")
        async with node.viewer(show, "g_late") as late:
            assert offset not in dict(late.room.comments)


async def test_likes_are_summed(node: Node, show: str) -> None:
    async with node.viewer(show) as ada, node.viewer(show, "g_bob") as bob:
        await ada.command("like", n=15)
        await bob.command("like", n=2)
        await ada.wait_for(
            lambda: ada.room.states.get("likes", (0, 0))[1] == 17, what="seventeen likes"
        )


async def test_viewers_are_counted(node: Node, show: str) -> None:
    async with node.viewer(show) as ada, node.viewer(show, "g_bob"):
        await ada.wait_for(
            lambda: ada.room.states.get("viewers", (0, {"now": 0}))[1]["now"] == 2,
            what="two viewers",
        )


async def test_whoever_was_cut_off_ends_with_the_same_room_and_own_holds(
    node: Node, show: str, product: str
) -> None:
    async with node.host(show) as host, node.viewer(show) as ada, node.viewer(show, "g_bob") as bob:
        await host.take_console()
        await host.act("go_live")
        drop = await open_sale(host)
        hold = await ada.buy(drop, [("MUG-S", 1)])
        await ada.cut()
        await host.act("pin_product", product=product)
        await bob.comment("while ada was away")
        await host.act("announce", text="back in a minute")
        answer = await ada.join()
        assert answer["recovered"] is True
        assert [one["rid"] for one in answer["holds"]] == [hold["rid"]]
        await ada.wait_for(
            lambda: (
                ada.room.facts == bob.room.facts
                and ada.room.comments == bob.room.comments
                and ada.room.states.get("stock:MUG-S") == bob.room.states.get("stock:MUG-S")
            ),
            what="the same room",
        )


async def test_a_hold_that_lapses_is_told_and_its_unit_comes_back(node: Node, show: str) -> None:
    async with node.host(show) as host, node.viewer(show) as ada:
        await host.take_console()
        await host.act("go_live")
        drop = await open_sale(host, hold_s=5)
        hold = await ada.buy(drop, [("MUG-S", 3)])
        await ada.wait_for(lambda: ada.room.value("stock:MUG-S") == 0, what="sold out")
        await ada.wait_for(
            lambda: ada.room.value("stock:MUG-S") == 3, what="units back", timeout_s=15
        )
        await ada.wait_for(
            lambda: (
                ("hold", hold["rid"], "expired")
                in [(name, one.get("rid"), one.get("state")) for name, one in ada.session.directs]
            ),
            what="word of the lapse",
        )
        assert await own_holds(node) == []
        late = await ada.command("cancel", rid=hold["rid"])
        assert late["state"] == "expired"


async def own_holds(node: Node) -> list[dict[str, object]]:
    async with node.api(node.token()) as api:
        found: list[dict[str, object]] = (await api.get("/api/v1/holds"))["holds"]
        return found


async def test_who_waits_is_told_the_place_and_gets_what_comes_back(node: Node, show: str) -> None:
    async with node.host(show) as host, node.viewer(show) as ada, node.viewer(show, "g_bob") as bob:
        await host.take_console()
        await host.act("go_live")
        drop = await open_sale(host, lines=[{"sku": "MUG-S", "units": 1}])
        held = await ada.buy(drop, [("MUG-S", 1)])
        entry = await bob.command("wait", rid=rid(1), drop=drop, sku="MUG-S")
        expected = {"rid": rid(1), "drop": drop, "sku": "MUG-S", "quantity": 1}
        assert entry == {**expected, "state": "waiting", "position": 1}
        await host.wait_for(
            lambda: host.room.states.get("waiting:MUG-S", [0, 0])[1] == 1, what="one waits"
        )
        await bob.cut()
        assert (await bob.join())["waits"] == [entry]
        await ada.command("cancel", rid=held["rid"])
        await bob.wait_for(
            lambda: (
                ("wait", {**expected, "state": "offered", "position": 0}) in bob.session.directs
            ),
            what="the offer",
        )
        holds = [value for name, value in bob.session.directs if name == "hold"]
        assert [(hold["rid"], hold["state"]) for hold in holds] == [(rid(1), "held")]
        assert bob.room.states["stock:MUG-S"][1] == 0
        assert await code_of(ada.buy(drop, [("MUG-S", 1)])) == "sold_out"
        assert (await ada.command("wait", rid=rid(2), drop=drop, sku="MUG-S"))["position"] == 1
        again = ada.command("wait", rid=rid(3), drop=drop, sku="MUG-S")
        assert await code_of(again) == "already_waiting"
        assert (await ada.command("stop_waiting", rid=rid(2)))["state"] == "left"
        assert await code_of(bob.command("stop_waiting", rid=rid(2))) == "unknown_wait"


async def close_entries(database_url: str, drop: str) -> None:
    """The hour of entries is over."""
    database = await Database.open(database_url)
    async with database.begin() as conn:
        await conn.execute(update(sale_drop).where(sale_drop.c.id == drop).values(draws_at=0))
    await database.close()


async def test_a_raffle_is_promised_drawn_and_can_be_checked_by_anybody(
    node: Node, show: str, sqlite_url: str
) -> None:
    async with node.host(show) as host, node.viewer(show) as ada, node.viewer(show, "g_bob") as bob:
        await host.take_console()
        await host.act("go_live")
        lines = [{"sku": "MUG-S", "units": 1}]
        two = host.act("open_drop", lines=[*lines, {"sku": "MUG-L"}], entry_s=5)
        assert await code_of(two) == "bad_params"
        drop = await open_sale(host, lines=lines, entry_s=3_600)
        await ada.wait_for(lambda: f"drop:{drop}" in ada.room.facts, what="the raffle")
        promised = ada.room.facts[f"drop:{drop}"]["raffle"]
        assert (promised["seed"], promised["drawn_at"]) == (None, None)
        assert await code_of(ada.buy(drop, [("MUG-S", 1)])) == "in_raffle"
        for n, viewer in enumerate((ada, bob)):
            entry = await viewer.command("wait", rid=rid(n), drop=drop, sku="MUG-S")
            assert entry["state"] == "entered"
        await host.wait_for(
            lambda: host.room.states.get("waiting:MUG-S", [0, 0])[1] == 2, what="two entries"
        )

        await close_entries(sqlite_url, drop)

        def told(viewer: Shopper) -> list[tuple[str, int]]:
            entries = [value for name, value in viewer.session.directs if name == "wait"]
            return [(entry["state"], entry["position"]) for entry in entries]

        for viewer in (ada, bob):
            await viewer.wait_for(lambda viewer=viewer: told(viewer) != [], what="the draw")
        await ada.wait_for(
            lambda: ada.room.facts[f"drop:{drop}"]["raffle"]["drawn_at"], what="the seed"
        )
        ranks = {told(ada)[0][1], told(bob)[0][1]}
        assert ranks == {1, 2}
        async with node.api() as api:
            draw = await api.get(f"/api/v1/drops/{drop}/raffle")
        assert draw["seed_sha"] == promised["seed_sha"] == commitment(draw["seed"])
        assert draw["entries"] == ranking(draw["seed"], [rid(0), rid(1)])
        first = ada if draw["entries"][0] == rid(0) else bob
        await first.wait_for(lambda: ("offered", 0) in told(first), what="the winner")
