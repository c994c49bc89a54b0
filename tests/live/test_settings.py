"""Settings: what is refused by name, what flags overrule, what never shows in a log."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from live.app import BYTES_PER_MBIT, _open_rooms
from live.settings import DRILL_WORD, EGRESS_MBIT, VARIABLES, BadSettings, Settings
from realtime.pace import EGRESS_NODE_BYTES_PER_S, EGRESS_ROOM_BYTES_PER_S


def test_an_empty_environment_gives_the_embedded_default() -> None:
    settings = Settings.from_environ({})
    assert (settings.host, settings.port, settings.data) == ("127.0.0.1", 8000, Path("data"))
    assert settings.valkey_url == settings.database_url == ""


def test_an_unknown_name_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(BadSettings, match=r"LIVE_DATABSE_URL .* did you mean LIVE_DATABASE_URL"):
        Settings.from_environ({"LIVE_DATABSE_URL": "x"})


def test_other_programs_variables_are_not_ours() -> None:
    assert Settings.from_environ({"PATH": "/bin", "ALIVE_X": "1"}).port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIVE_PORT", "eighty"),
        ("LIVE_PORT", "70000"),
        ("LIVE_SECRET", "short"),
        ("LIVE_PUBLIC_URL", "live.example.com"),
        ("LIVE_ORIGINS", "https://good.example, bad.example"),
        ("LIVE_VALKEY_URL", "http://cache"),
        ("LIVE_DATABASE_URL", "mysql://shop"),
        ("LIVE_LOG_LEVEL", "loud"),
        ("LIVE_NODES", "0"),
        ("LIVE_NODES", "many"),
        ("LIVE_CONNECTIONS_MAX", "0"),
        ("LIVE_JOIN_LIMITS", "500"),
        ("LIVE_JOIN_LIMITS", "0,20"),
        ("LIVE_ELSEWHERE_URL", "https://other.example"),
        ("LIVE_DRAIN_S", "-1"),
        ("LIVE_TRUSTED_PROXIES", "*"),
        ("LIVE_TRUSTED_PROXIES", "10.0.0.1, proxy.example"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=name):
        Settings.from_environ({name: value})


def test_a_process_is_armed_to_kill_itself_only_by_two_settings_that_agree() -> None:
    place = {"LIVE_CRASH_AT": "reserve:after_commit:3"}
    drill = {"LIVE_DRILL": DRILL_WORD}
    assert Settings.from_environ(drill).crash_at is None
    assert Settings.from_environ(place | drill).crash_at == ("reserve:after_commit", 3)
    with pytest.raises(BadSettings, match="on purpose"):
        Settings.from_environ(place)
    with pytest.raises(BadSettings, match="on purpose"):
        Settings.from_environ(place | {"LIVE_DRILL": "1"})
    with pytest.raises(BadSettings, match="real money"):
        Settings.from_environ(place | drill | {"LIVE_STRIPE_KEY": "sk_live_x"})
    for wrong in ("reserve:after_commit", "reserve:after_commit:0", "reserve:later:1", "3"):
        with pytest.raises(BadSettings, match="LIVE_CRASH_AT"):
            Settings.from_environ(drill | {"LIVE_CRASH_AT": wrong})


def test_joins_are_paced_unless_that_is_switched_off() -> None:
    assert Settings.from_environ({}).join_limits == (500, 20)
    assert Settings.from_environ({"LIVE_JOIN_LIMITS": "1000, 50"}).join_limits == (1000, 50)
    assert Settings.from_environ({"LIVE_JOIN_LIMITS": "off"}).join_limits is None


def test_egress_is_bounded_for_a_process_and_for_a_room() -> None:
    assert Settings.from_environ({}).egress_mbit == (2000, 1600)
    assert Settings.from_environ({"LIVE_EGRESS": "500,250"}).egress_mbit == (500, 250)
    for wrong in ("500", "0,1", "100,200", "a,b"):
        with pytest.raises(BadSettings, match="LIVE_EGRESS"):
            Settings.from_environ({"LIVE_EGRESS": wrong})


def test_the_egress_that_is_set_by_default_is_the_pace_s_own() -> None:
    node, room = (mbit * BYTES_PER_MBIT for mbit in EGRESS_MBIT)
    assert (node, room) == (EGRESS_NODE_BYTES_PER_S, EGRESS_ROOM_BYTES_PER_S)


async def test_the_egress_that_is_set_reaches_the_rooms(tmp_path: Path) -> None:
    nobody = cast("Any", None)
    async with AsyncExitStack() as stack:
        url = f"unix://{tmp_path}/nobody"
        hub = await _open_rooms(stack, url, "n", nobody, nobody, (8, 4))
        assert hub._pace.budget.bytes_per_s == 1_000_000
        assert hub._pace.room_bytes_per_s == 500_000


def test_a_flag_overrules_the_environment() -> None:
    settings = Settings.from_environ({"LIVE_PORT": "9000"}, flags={"LIVE_PORT": "9001"})
    assert settings.port == 9001


def test_lists_are_separated_by_commas() -> None:
    settings = Settings.from_environ({"LIVE_ORIGINS": "https://a.example/, https://b.example"})
    assert settings.origins == ("https://a.example", "https://b.example")


def test_secrets_are_not_in_the_repr() -> None:
    settings = Settings.from_environ(
        {
            "LIVE_SECRET": "canary-" + "x" * 32,
            "LIVE_STRIPE_KEY": "sk_canary",
            "LIVE_STRIPE_WEBHOOK_SECRET": "whsec_canary",
            "LIVE_DATABASE_URL": "postgresql://shop:canary@db/shop",
            "LIVE_VALKEY_URL": "redis://:canary@cache",
        }
    )
    assert "canary" not in repr(settings)


def test_the_address_is_what_a_browser_can_open() -> None:
    assert Settings(host="0.0.0.0", port=80).address == "http://127.0.0.1:80"
    assert Settings(host="::1", port=8000).address == "http://[::1]:8000"
    assert Settings(public_url="https://live.example").address == "https://live.example"


def test_readme_explains_every_variable() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    for variable in VARIABLES:
        assert f"| `{variable.name}` |" in readme, variable.name
