"""HTTP for claims: one's own receipt, a host's export and check of a drop, the rule for lapses.

Responsible for the shapes; walking and judging is `audit`'s. It must not know SQL. A viewer sees
what was decided on their own presses, a host the whole order of a drop; both see the rule, because
a rule that is not told educates nobody.

A receipt is not signed. An HMAC would prove something only to the shop, which has the table itself,
and a signature that others can check (Ed25519) needs a library this program does not carry and
costs more than the decision. What protects the order is that it is numbered without holes, that
winners' numbers are committed with their holds, and that a viewer keeps (epoch, n): a shop that
rewrites its table later meets people with other numbers.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct

from commerce.claims import Kept, Place
from live.audit import Audit, Limited, human
from live.codes import refuse
from live.http import Call, Route, Text

PAGE_MAX: Final = 1_000


class ClaimView(Struct, frozen=True):
    """One numbered decision (or release, or change of stock). Times in milliseconds, 0: none."""

    receipt: list[int]
    text: str
    what: str
    state: str | None
    drop: str
    rid: str
    viewer: str
    lines: list[tuple[str, int]]
    sku: str
    number: int
    pressed_at: int
    decided_at: int
    node: str


class OwnClaims(Struct, frozen=True):
    """What was decided on one press, oldest first."""

    claims: list[ClaimView]


class ClaimPage(Struct, frozen=True):
    """Claims of a drop in their order; `next` continues. `flagged`: told sold out by a node's own
    flag, without a number."""

    claims: list[ClaimView]
    next: str | None
    flagged: int


class FindingView(Struct, frozen=True):
    """Something in the order that cannot be."""

    code: str
    receipt: list[int]
    text: str


class CheckView(Struct, frozen=True):
    """Whether the order holds together. `missing`: numbers that were lost, so not judged."""

    ok: bool
    epochs: int
    claims: int
    winners: int
    refused: int
    missing: int
    flagged: int
    findings: list[FindingView]
    more_findings: int


class StepView(Struct, frozen=True):
    """From so many lapses on: percent of the hold's time, holds at a time."""

    lapses: int
    percent: int
    holds: int


class RuleView(Struct, frozen=True):
    """What becomes of holds of viewers whose holds run out unpaid; no steps: nothing."""

    window_ms: int
    steps: list[StepView]


class LimitedList(Struct, frozen=True):
    """Viewers to whom the rule applies now."""

    viewers: list[Limited]


class ClaimQuery(Struct, frozen=True):
    """Paging: `after` is `next` of the page before."""

    after: Annotated[str, Meta(pattern=r"^[0-9]{1,15}-[0-9]{1,15}$(?!\n)")] | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 200


class ClaimsApi:
    """Handlers."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def routes(self) -> list[Route]:
        """The table."""
        drop = "/api/v1/drops/{drop}/claims"
        return [
            Route("GET", "/api/v1/claims/{rid}", "get_claim",
                  "What was decided on a press of yours; refusals appear within a second.",
                  self.get_claim, OwnClaims, who="somebody", codes=("unknown_claim",),
                  tag="buying"),
            Route("GET", drop, "list_claims", "All claims of a sale, in their order.",
                  self.list_claims, ClaimPage, who="host", query=ClaimQuery,
                  codes=("unknown_drop",), tag="claims"),
            Route("GET", drop + ".csv", "export_claims", "The same as CSV, complete.",
                  self.export_claims, str, who="host", produces="text/csv",
                  codes=("unknown_drop",), tag="claims"),
            Route("GET", drop + "/check", "check_claims",
                  "Recompute whether the order of claims is consistent.", self.check_claims,
                  CheckView, who="host", codes=("unknown_drop",), tag="claims"),
            Route("GET", "/api/v1/hold-rule", "get_hold_rule",
                  "What becomes of holds of viewers whose holds run out unpaid.",
                  self.get_hold_rule, RuleView, tag="buying"),
            Route("GET", "/api/v1/limited-viewers", "list_limited_viewers",
                  "Viewers whose holds are shorter and fewer now.", self.list_limited,
                  LimitedList, who="host", tag="claims"),
        ]  # fmt: skip

    async def get_claim(self, call: Call) -> OwnClaims:
        """A stranger's press is an unknown one."""
        found = await self._audit.own(call.me.id, call.path["rid"])
        if not found:
            raise refuse("unknown_claim")
        return OwnClaims([_view(kept) for kept in found])

    async def list_claims(self, call: Call) -> ClaimPage:
        """A page."""
        query: ClaimQuery = call.query
        drop = call.path["drop"]
        found, after = await self._audit.page(drop, _place(query.after), query.limit)
        more = None if after is None else f"{after[0]}-{after[1]}"
        return ClaimPage([_view(kept) for kept in found], more, await self._audit.flagged(drop))

    async def export_claims(self, call: Call) -> Text:
        """Everything, made while it is sent."""
        drop = call.path["drop"]
        chunks = await self._audit.csv(drop)
        return Text("text/csv", chunks, "claims.csv")

    async def check_claims(self, call: Call) -> CheckView:
        """Replays the epochs of the drop."""
        drop = call.path["drop"]
        report = await self._audit.check(drop)
        return CheckView(
            ok=report.ok,
            epochs=report.epochs,
            claims=report.claims,
            winners=report.winners,
            refused=report.refused,
            missing=report.missing,
            flagged=await self._audit.flagged(drop),
            findings=[
                FindingView(finding.code, [finding.epoch, finding.n], finding.text)
                for finding in report.findings
            ],
            more_findings=report.more_findings,
        )

    async def get_hold_rule(self, _call: Call) -> RuleView:
        """The rule."""
        rule = self._audit.rule
        steps = [StepView(step.lapses, step.percent, step.holds) for step in rule.steps]
        return RuleView(rule.window_ms, steps)

    async def list_limited(self, _call: Call) -> LimitedList:
        """The worst first."""
        return LimitedList(await self._audit.limited())


def _place(after: str | None) -> Place:
    if after is None:
        return (-1, -1)
    epoch, _, n = after.partition("-")
    return int(epoch), int(n)


def _view(kept: Kept) -> ClaimView:
    claim = kept.claim
    return ClaimView(
        receipt=[claim.epoch, claim.n],
        text=human(claim.epoch, claim.n),
        what=claim.verdict.value,
        state=None if kept.state is None else kept.state.value,
        drop=claim.drop,
        rid=claim.rid,
        viewer=claim.viewer,
        lines=list(claim.lines),
        sku=claim.sku,
        number=claim.number,
        pressed_at=claim.pressed_at,
        decided_at=claim.decided_at,
        node=claim.node,
    )
