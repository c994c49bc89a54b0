"""What a crowd does, for Locust: watchers who like, chatters who comment, buyers who press Buy.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 --show ID

Runs headless and from Locust's web page. Without --show (or LOCUST_SHOW) the newest live show is
taken. Responsible for behaviour and weights; connections and measuring are in `users`. "Sold out",
"limit reached" and "closed" are answers to a press of Buy, not failures.

The rates are those of a lively show (a comment per chatter each 5 to 15 s; the server's limit is
one a second), so that 200 users fit on one core beside the server.
"""

from typing import Any

import gevent  # type: ignore[import-untyped]
from locust import between, events, task
from locust.argument_parser import LocustArgumentParser

from loadtests.users import TRUTH, LiveUser

BUY_ANSWERS = frozenset({"sold_out", "limit_reached", "drop_closed", "drop_not_open"})
CANCEL_ANSWERS = frozenset({"hold_ended"})
BUSY_TRIES = 5
KEEP_SHARE = 0.3
"""Of the holds: neither paid nor cancelled, so that they lapse."""
SENTENCES = (
    "Is it true to size?",
    "how long does shipping take",
    "love the colour",
    "请问有小码吗",
    "Ist das Leinen?",
    "wow",
    "just got mine, thank you!",
)


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: LocustArgumentParser) -> None:
    """--show and --others, also as environment variables and in the web page."""
    parser.add_argument(
        "--show", default="", env_var="LOCUST_SHOW", help="id of the show (default: a live one)"
    )
    parser.add_argument(
        "--others",
        action="store_true",
        env_var="LOCUST_OTHERS",
        help="others change the stock too (people, a host, more workers): do not check its rises",
    )


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def start(environment: Any, **_: Any) -> None:
    """A new run knows nothing of the one before."""
    TRUTH.newest.clear()
    TRUTH.pressed.clear()
    TRUTH.risen.clear()
    TRUTH.strict = not getattr(environment.parsed_options, "others", False)


class Watcher(LiveUser):
    """Watches; taps the heart now and then."""

    weight = 7
    wait_time = between(5, 20)

    @task
    def like(self) -> None:
        if self.joined:
            self.tell("like", n=self.random.randint(1, 15))


class Chatter(LiveUser):
    """Watches and talks."""

    weight = 2
    wait_time = between(5, 15)

    @task
    def comment(self) -> None:
        if self.joined:
            self.command("comment", text=self.random.choice(SENTENCES), rid=self.new_rid())


class Buyer(LiveUser):
    """Presses Buy on whatever is open; gives most of it back."""

    weight = 1
    wait_time = between(2, 6)

    @task
    def buy(self) -> None:
        drops = [
            fact
            for key, fact in self.session.room.facts.items()
            if key.startswith("drop:") and fact["state"] in {"open", "sold_out"}
        ]
        if not drops or not self.joined:
            return
        drop = self.random.choice(drops)
        sku = self.random.choice(drop["lines"])["sku"]
        hold = self._press(drop["id"], sku)
        if hold is not None and self.random.random() >= KEEP_SHARE:
            gevent.sleep(self.random.uniform(0.5, 2))
            self.command("cancel", CANCEL_ANSWERS, rid=hold["rid"])

    def _press(self, drop: str, sku: str) -> dict[str, Any] | None:
        """The hold, or None. "busy" is no decision: the same press is repeated."""
        rid = self.new_rid()
        self.undecided.add(rid)
        TRUTH.press(sku, 1)
        params: dict[str, Any] = {"rid": rid, "drop": drop, "lines": [[sku, 1]]}
        answer: Any = "busy"
        for attempt in range(BUSY_TRIES):
            answers = BUY_ANSWERS if attempt == BUSY_TRIES - 1 else BUY_ANSWERS | {"busy"}
            answer = self.command("buy", answers, **params)
            if answer is None:
                return None  # undecided: asked about at the next join
            if answer != "busy":
                break
            gevent.sleep(self.random.uniform(0.2, 1.0) * (attempt + 1))
            params["retry"] = True
        self.undecided.discard(rid)
        if isinstance(answer, dict):
            return answer
        TRUTH.refused(sku, 1)
        return None
