"""HTTP for what is held about people: see it, take it along, have it forgotten.

Responsible for a viewer's own copy and erasure, and for the same by a host on somebody's behalf (a
letter, a phone call). What is held and how it is forgotten is `commerce.people`'s.
"""

import logging
import re
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from commerce.people import People
from live.codes import refuse
from live.http import Call, Route

log = logging.getLogger(__name__)

PERSON: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
UNDER_WAY: Final = ("orders_under_way",)


class Held(Struct, frozen=True):
    """Everything that is held about a person, by table."""

    person: str
    tables: dict[str, Any]


class ErasureBody(Struct, frozen=True):
    """`force`: also while an order is under way."""

    force: bool = False


class PeopleApi:
    """Handlers. `clock` in milliseconds."""

    def __init__(self, people: People, clock: Callable[[], int]) -> None:
        self._people = people
        self._clock = clock

    def routes(self) -> list[Route]:
        """The table."""
        person = "/api/v1/people/{person}"
        return [
            Route("GET", "/api/v1/me/data", "get_my_data", "Everything held about you.",
                  self.mine, Held, who="somebody", tag="people"),
            Route("POST", "/api/v1/me/erasure", "erase_me",
                  "Be forgotten: name, address, e-mail and phone are destroyed.",
                  self.erase_me, None, who="somebody", status=204, key="optional",
                  codes=UNDER_WAY, tag="people"),
            Route("GET", person + "/data", "get_data", "Everything held about a person.",
                  self.theirs, Held, who="host", codes=("bad_params",), tag="people"),
            Route("POST", person + "/erasure", "erase_person", "Forget a person.",
                  self.erase, None, who="host", body=ErasureBody, status=204, key="optional",
                  codes=UNDER_WAY, tag="people"),
        ]  # fmt: skip

    async def mine(self, call: Call) -> Held:
        """With details in the clear."""
        return Held(**await self._people.export(call.me.id))

    async def erase_me(self, call: Call) -> None:
        """Gives holds back; refused while something is being paid or on its way."""
        await self._people.erase(call.me.id, self._clock())

    async def theirs(self, call: Call) -> Held:
        """For a person who asks by another way."""
        _person(call)
        log.info("%s looked at what is held about %s", call.me.id, call.path["person"])
        return Held(**await self._people.export(call.path["person"]))

    async def erase(self, call: Call) -> None:
        """The same with a host's judgement."""
        body: ErasureBody = call.body
        _person(call)
        log.info("%s had %s forgotten", call.me.id, call.path["person"])
        await self._people.erase(call.path["person"], self._clock(), force=body.force)


def _person(call: Call) -> None:
    """Raises `Rejected` (bad_params) for what cannot be anybody's id."""
    if PERSON.fullmatch(call.path["person"]) is None:
        raise refuse("bad_params", field="person")
