"""Tokens: whose they are, and everything that makes one worthless."""

import jwt
import pytest

from live.identity import GUEST_TTL_S, Identity, Role, Tokens
from realtime.errors import Rejected

SECRET = "s" * 32
NOW = 1_800_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> Tokens:
    return Tokens(SECRET, clock)


GUEST = Identity("g_1", "Ada 🫖", Role.GUEST)


def code_of(tokens: Tokens, token: str | None, show: str | None = None) -> str:
    with pytest.raises(Rejected) as refused:
        tokens.read(token, show=show)
    return refused.value.code


def test_a_token_says_who_holds_it(tokens: Tokens) -> None:
    assert tokens.read(tokens.issue(GUEST, GUEST_TTL_S)) == GUEST


def test_a_token_is_good_until_the_last_millisecond_and_no_longer(
    tokens: Tokens, clock: Clock
) -> None:
    token = tokens.issue(GUEST, 60)
    clock.now = NOW + 60_000 - 1
    assert tokens.read(token) == GUEST
    clock.now += 1
    assert code_of(tokens, token) == "token_expired"


def test_a_missing_token_is_told_from_a_wrong_one(tokens: Tokens) -> None:
    assert code_of(tokens, None) == "token_missing"
    assert code_of(tokens, "") == "token_missing"
    assert code_of(tokens, "nonsense") == "token_invalid"


def test_a_token_signed_by_somebody_else_is_invalid(tokens: Tokens, clock: Clock) -> None:
    forged = Tokens("x" * 32, clock).issue(Identity("a_1", "Eve", Role.HOST), 60)
    assert code_of(tokens, forged) == "token_invalid"


def test_a_token_without_a_signature_is_invalid(tokens: Tokens) -> None:
    unsigned = jwt.encode(
        {"iss": "vitrine", "sub": "a_1", "role": "host", "exp": NOW // 1000 + 60},
        key=None,
        algorithm="none",
    )
    assert code_of(tokens, unsigned) == "token_invalid"


def test_a_token_with_an_unknown_role_or_no_expiry_is_invalid(tokens: Tokens) -> None:
    for claims in (
        {"iss": "vitrine", "sub": "a", "role": "emperor", "exp": NOW // 1000 + 60},
        {"iss": "vitrine", "sub": "a", "role": "host"},
        {"iss": "another", "sub": "a", "role": "host", "exp": NOW // 1000 + 60},
    ):
        assert code_of(tokens, jwt.encode(claims, SECRET, algorithm="HS256")) == "token_invalid"


def test_a_token_for_one_show_opens_no_other(tokens: Tokens) -> None:
    token = tokens.issue(Identity("g_1", "Ada", Role.GUEST, show="s_1"), 60)
    assert tokens.read(token, show="s_1").show == "s_1"
    assert code_of(tokens, token, show="s_2") == "wrong_show"


@pytest.mark.parametrize("role", list(Role))
def test_only_hosts_and_operators_run_shows(role: Role) -> None:
    someone = Identity("a_1", "Someone", role)
    if role in (Role.HOST, Role.OPERATOR):
        someone.require_host()
    else:
        with pytest.raises(Rejected, match="forbidden"):
            someone.require_host()
