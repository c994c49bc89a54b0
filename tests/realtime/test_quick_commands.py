"""Commands that are taken without a task: in order with all others, whenever the answer comes."""

from collections.abc import Callable

import pytest

from realtime.connection import Connection
from realtime.errors import CloseCode, Rejected
from realtime.wire import Command, pack_command
from tests.realtime.kit import node, until, viewer


class Presses:
    """Takes `press`: answers at once, refuses, fails, or keeps it for `answer`."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[object], None]] = []

    def __call__(
        self, connection: Connection, command: Command, done: Callable[[object], None]
    ) -> bool:
        if command.name != "press":
            return False
        match command.params.get("how"):
            case "refuse":
                raise Rejected("sold_out", "Sold out.")
            case "refuse_done":
                done(Rejected("sold_out", "Sold out."))
            case "fail":
                raise RuntimeError("a secret of ours")
            case "strange":
                done({"what": object()})
            case "later":
                self.waiting.append(done)
            case _:
                done({"ok": True})
        return True

    def answer(self, answer: object) -> None:
        self.waiting.pop(0)(answer)


async def test_what_is_answered_at_once_is_answered(realtime_valkey_url, prefix):
    presses = Presses()
    async with (
        node(realtime_valkey_url, prefix, quick=presses) as here,
        viewer(here) as one,
    ):
        assert (await one.refusal("press"))["code"] == "not_joined"
        await one.join("s")
        assert await one.command("press") == {"ok": True}
        assert (await one.refusal("press", how="refuse"))["code"] == "sold_out"
        assert (await one.refusal("press", how="refuse_done"))["code"] == "sold_out"
        assert await one.command("echo", a=1) == {"a": 1}
        assert here.handled == ["join", "echo"]


@pytest.mark.parametrize("how", ["fail", "strange"])
async def test_our_own_faults_are_internal_and_the_connection_lives_on(
    realtime_valkey_url, prefix, how
):
    async with (
        node(realtime_valkey_url, prefix, quick=Presses()) as here,
        viewer(here) as one,
    ):
        await one.join("s")
        refused = await one.refusal("press", how=how)
        assert refused["code"] == "internal"
        assert "secret" not in str(refused)
        assert await one.command("press") == {"ok": True}


async def test_commands_behind_one_without_an_answer_wait_for_it(realtime_valkey_url, prefix):
    presses = Presses()
    async with (
        node(realtime_valkey_url, prefix, quick=presses) as here,
        viewer(here) as one,
    ):
        await one.join("s")
        press = await one.send("press", how="later")
        echo = await one.send("echo", a=1)
        second = await one.send("press", how="later")
        await until(lambda: len(presses.waiting) == 1)
        assert here.handled == ["join"]
        presses.answer({"ok": 1})
        # The second press waits behind a command with a task, so it has one too; here the kit's
        # handler knows no presses.
        assert (await one.answer(second))[2]["code"] == "unknown_command"
        assert list(one.answers) == [1, press, echo, second]
        assert await one.command("press") == {"ok": True}


async def test_leaving_waits_for_the_answer(realtime_valkey_url, prefix):
    presses = Presses()
    async with (
        node(realtime_valkey_url, prefix, quick=presses) as here,
        viewer(here) as one,
    ):
        await one.join("s")
        press = await one.send("press", how="later")
        await until(lambda: presses.waiting)
        assert here.hub.pressing == 1
        assert not here.hub._turns._rushed(), "one is no rush"
        here.connections[0].leave(CloseCode.DRAIN)
        presses.answer({"ok": 1})
        assert here.hub.pressing == 0
        assert await one.closed() == CloseCode.DRAIN
        assert one.answers[press][2] == {"ok": 1}


async def test_an_answer_for_somebody_who_has_gone_goes_nowhere(realtime_valkey_url, prefix):
    presses = Presses()
    async with (
        node(realtime_valkey_url, prefix, quick=presses) as here,
        viewer(here) as one,
        viewer(here) as other,
    ):
        await one.join("s")
        await other.join("s")
        await one.send("press", how="later")
        await one.send("echo", a=1)
        await until(lambda: presses.waiting)
        await one.cut()
        await until(lambda: here.hub.rooms[0].size == 1)
        presses.answer({"ok": 1})
        assert await other.command("echo", a=2) == {"a": 2}
        assert here.handled.count("echo") == 1


async def test_a_command_without_an_id_gets_no_reply(realtime_valkey_url, prefix):
    presses = Presses()
    async with (
        node(realtime_valkey_url, prefix, quick=presses) as here,
        viewer(here) as one,
    ):
        await one.join("s")
        await one.socket.send(pack_command(0, "press", {}))
        assert await one.command("echo") == {}
        assert 0 not in one.answers


async def test_many_under_way_are_a_rush_and_what_is_not_urgent_gives_way(
    realtime_valkey_url, prefix, monkeypatch
):
    monkeypatch.setattr("realtime.hub.RUSH", 2)
    presses = Presses()
    async with (
        node(realtime_valkey_url, prefix, quick=presses) as here,
        viewer(here) as one,
        viewer(here) as two,
    ):
        for each in (one, two):
            await each.join("s")
            await each.send("press", how="later")
        await until(lambda: here.hub.pressing == 2)
        assert here.hub._turns._rushed()
        presses.answer({"ok": True})
        assert not here.hub._turns._rushed()
        presses.answer({"ok": True})
