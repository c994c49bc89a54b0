import asyncio
import random

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.broker import Chat, Control, Direct
from realtime.connection import Limits
from realtime.errors import CloseCode
from tests.realtime.kit import Viewer, node, until, viewer


async def test_commands_are_answered_in_order_and_one_after_another(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as one:
        await one.join("s")
        slow = await one.send("wait")
        quick = await one.send("echo", a=1)
        await until(lambda: here.handled[-1] == "wait")
        await here.hub.publish("s", [Control("pin", 1)])
        await until(lambda: one.view.facts == {"pin": 1}, "live pushes while a command waits")
        assert slow not in one.answers
        assert quick not in one.answers
        here.gate.set()
        await one.answer(quick)
        assert list(one.answers) == [1, slow, quick]


async def test_a_join_comes_first_and_only_once_and_a_refused_one_may_be_repeated(
    realtime_valkey_url, prefix
):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as one:
        assert (await one.refusal("echo"))["code"] == "not_joined"
        assert (await one.refusal("join", show="s", token="bad"))["code"] == "token_invalid"
        assert (await one.refusal("join", show="s", refuse=True))["code"] == "forbidden"
        assert here.hub.rooms[0].size == 0
        assert one.view.epoch is None
        assert (await one.refusal("echo"))["code"] == "not_joined"
        await one.join("s")
        assert (await one.refusal("join", show="s"))["code"] == "already_joined"
        assert (await one.refusal("dance"))["details"] == {"n": 1}
        assert here.hub.rooms[0].size == 1


async def test_what_happens_while_a_join_is_answered_comes_after_it_exactly_once(
    realtime_valkey_url, prefix
):
    async with (
        node(realtime_valkey_url, prefix) as here,
        viewer(here) as steady,
        viewer(here) as one,
    ):
        await steady.join("s")
        await here.hub.publish("s", [Control("a", 1), Chat("1", "1")])
        await until(lambda: steady.view.chat == 1)
        joining = await one.send("join", show="s", viewer="v", pause=True)
        await until(lambda: here.hub.rooms[0].size == 2)
        await here.hub.publish(
            "s", [Control("b", 1), Chat("2", "2"), Direct("viewer:v", "hold", 1)]
        )
        await until(lambda: steady.view.chat == 2)
        await here.hub.publish("s", [Control("c", 1)])
        assert one.frames == []
        here.gate.set()
        await one.answer(joining)
        await here.hub.publish("s", [Chat("3", "3")])
        await until(lambda: one.view.chat == 3 and steady.view.chat == 3)
        kinds = [push[0] for push in one.frames[0]]
        assert kinds[:2] == [0, 8]
        assert kinds.index(5) > 1
        assert one.directs == [["hold", 1]]
        assert one.view.facts == steady.view.facts == {"a": 1, "b": 1, "c": 1}
        assert one.view.comments == steady.view.comments
        assert (one.view.doubles, one.view.gaps) == (0, 0)


async def test_a_failing_handler_is_logged_and_told_without_its_text(
    realtime_valkey_url, prefix, caplog
):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as one:
        await one.join("s")
        refused = await one.refusal("fail")
        assert refused["code"] == "internal"
        assert "secret" not in repr(refused)
        assert "secret" in caplog.text
        assert (await one.refusal("strange"))["code"] == "internal"
        assert await one.command("echo", a=[1, {"b": None}]) == {"a": [1, {"b": None}]}
        assert here.hub.counters.failures["internal"] == 2


async def test_id_0_wants_no_reply_but_hears_a_refusal(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as one:
        await one.join("s")
        await one.socket.send(msgpack.packb([0, "echo", {}]))
        await one.socket.send(msgpack.packb([0, "dance", {}]))
        await until(lambda: bool(one.refused))
        assert one.refused[0]["code"] == "unknown_command"
        assert list(one.answers) == [1]
        assert here.handled == ["join", "echo", "dance"]


async def test_commands_over_the_rate_are_refused_and_a_flood_is_closed(
    realtime_valkey_url, prefix
):
    limits = Limits(commands_per_s=1, commands_burst=5, refusals_in_a_row_max=10)
    async with node(realtime_valkey_url, prefix, limits=limits) as here, viewer(here) as one:
        await one.join("s")
        for _ in range(4):
            await one.command("echo")
        for _ in range(10):
            await one.socket.send(msgpack.packb([7, "echo", {}]))
        assert await one.closed() == CloseCode.FLOOD
        assert one.refused[0]["code"] == "rate_limited"
        assert 0 < one.refused[0]["retry_after_ms"] <= 1000
        assert one.answers[7][0] == 1
        assert here.hub.counters.failures["rate_limited"] == 10
        async with viewer(here) as host:
            await host.join("s", exempt=True)
            for _ in range(30):
                await host.command("echo")


async def test_more_waiting_commands_than_the_backlog_are_busy(realtime_valkey_url, prefix):
    limits = Limits(commands_burst=100, backlog_max=3)
    async with node(realtime_valkey_url, prefix, limits=limits) as here, viewer(here) as one:
        await one.join("s")
        await one.send("wait")
        await until(lambda: here.handled[-1] == "wait")
        for _ in range(5):
            await one.send("echo")
        await until(lambda: len(one.refused) == 2)
        assert {refused["code"] for refused in one.refused} == {"busy"}
        here.gate.set()
        await until(lambda: len(one.answers) == 7)


async def test_the_first_join_has_a_deadline(realtime_valkey_url, prefix):
    limits = Limits(join_timeout_ms=1_500)
    options = {"limits": limits, "beat_ms": 400}
    async with (
        node(realtime_valkey_url, prefix, **options) as here,
        viewer(here) as joined,
        viewer(here) as idle,
    ):
        await joined.join("s")
        assert await idle.closed() == CloseCode.JOIN_TIMEOUT
        assert await joined.command("echo") == {}


async def test_beats_come_and_a_silent_viewer_is_closed(realtime_valkey_url, prefix):
    options = {"limits": Limits(silent_beats_max=2), "beat_ms": 80}
    async with node(realtime_valkey_url, prefix, **options) as here, viewer(here) as one:
        await one.join("s")
        # The library answers pings by itself, so this viewer lives on saying nothing.
        await until(lambda: one.beats >= 5)
        one.socket.transport.pause_reading()  # now it does not even see them
        await until(lambda: here.hub.counters.closed[CloseCode.SILENT] == 1)
        one.socket.transport.resume_reading()
        assert await one.closed() == CloseCode.SILENT


async def test_text_and_endless_frames_end_the_connection(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here:
        async with viewer(here) as one:
            await one.join("s")
            await one.socket.send("text")
            assert await one.closed() == 4500
        async with viewer(here) as one:
            await one.socket.send(b"\x00" * 65_537)
            assert await one.closed() == 1009
        async with viewer(here) as one:
            await one.socket.send([b"\x00" * 40_000, b"\x00" * 40_000])
            assert await one.closed() == 1009


async def test_eight_bad_frames_end_the_connection(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here, viewer(here) as one:
        await one.join("s")
        bad = [b"\xc1", b"", b"x" * 20_000, b"\x91" * 20 + b"\xc0", b"\x90", b"\x81\x80\x80"]
        for frame in bad:
            await one.socket.send(frame)
        assert await one.command("echo", a=1) == {"a": 1}
        assert [refused["code"] for refused in one.refused] == [
            *("bad_frame", "bad_frame", "too_large", "too_deep", "bad_frame", "bad_frame"),
        ]
        await one.socket.send(b"\xc1")
        await one.socket.send(b"\xc1")
        assert await one.closed() == CloseCode.PROTOCOL


async def test_a_socket_may_outlive_the_application_that_accepted_it(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix, return_early=True) as here, viewer(here) as one:
        await one.join("s")
        assert await one.command("echo", a=1) == {"a": 1}
        await here.hub.publish("s", [Control("pin", 1)])
        await until(lambda: one.view.facts == {"pin": 1})
        await one.socket.close()
        await until(lambda: here.hub.connections == 0)
        assert here.hub.rooms[0].size == 0


async def test_a_command_under_way_ends_with_its_connection(realtime_valkey_url, prefix):
    async with node(realtime_valkey_url, prefix) as here:
        one = await Viewer().open(here)
        await one.join("s")
        await one.send("wait")
        await until(lambda: here.handled[-1] == "wait")
        await one.cut()
        await until(lambda: here.hub.connections == 0)
        assert here.connections[0]._worker is None or here.connections[0]._worker.cancelling()


HOSTILE = st.one_of(
    st.binary(max_size=200),
    st.lists(st.binary(max_size=30), max_size=3).map(b"".join),
    st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text()
        ),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    ).map(msgpack.packb),
)


@given(frames=st.lists(HOSTILE, min_size=300, max_size=300), seed=st.integers(0, 2**32))
@settings(max_examples=2, deadline=None)
def test_hostile_frames_leave_the_server_as_it_was(realtime_valkey_url, frames, seed):
    async def scenario() -> None:
        limits = Limits(bad_frames_max=10**6, commands_burst=10**6)
        async with node(realtime_valkey_url, f"fuzz{seed}", limits=limits) as here:
            async with viewer(here) as victim, viewer(here) as attacker:
                await victim.join("s")
                rng = random.Random(seed)
                for frame in frames:
                    await attacker.socket.send(frame)
                for _ in range(20):  # bytes that are not even WebSocket frames
                    raw = await Viewer().open(here)
                    raw.socket.transport.write(rng.randbytes(rng.randint(1, 300)))
                    raw.socket.transport.abort()
                    await raw.closed()
                await attacker.join("s")
                assert await victim.command("echo", a=1) == {"a": 1}
            await until(lambda: here.hub.connections == 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("origin", ["a", "b"])
async def test_one_direct_reaches_a_group_and_is_kept_by_nobody(
    realtime_valkey_url, prefix, origin
):
    async with (
        node(realtime_valkey_url, prefix) as a,
        node(realtime_valkey_url, prefix) as b,
        viewer(a) as console,
        viewer(b) as second,
        viewer(a) as guest,
    ):
        await console.join("s", tags=["console"])
        await second.join("s", tags=["console"])
        await guest.join("s")
        await {"a": a, "b": b}[origin].hub.publish("s", [Direct("tag:console", "sale", {"n": 1})])
        await until(lambda: console.directs == second.directs == [["sale", {"n": 1}]])
        await guest.command("echo")
        assert guest.directs == []
