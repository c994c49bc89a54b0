"""The double-entry ledger in words: accounts, postings, and what each fact of money posts.

Responsible for which accounts a capture, a refund or a dispute touches. Pure; rows are
`ledger_sql`'s. It must not know orders: amounts come in.

Debit is positive, credit negative, and the postings of an entry add up to zero in each currency.
Entries are never changed: what turns out wrong is posted back. Money is booked when it moves at the
provider (a capture) or is promised back (a refund), never when it is merely reserved: an
authorisation belongs to nobody.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from commerce.money import allocate


class Account(StrEnum):
    """Where money is or what it is for."""

    PROVIDER = "provider_clearing"
    """At the provider, before fees and payouts."""
    SALES = "sales"
    """Goods, net of tax."""
    DISCOUNTS = "discounts"
    SHIPPING = "shipping_income"
    TAX = "tax_payable"
    UNALLOCATED = "unallocated_money"
    """Taken although there was no unit: owed to its payer."""
    REFUNDS = "refunds"
    """What sales were given back, net of tax."""
    REFUNDS_PAYABLE = "refunds_payable"
    """Promised back, not yet gone."""
    DISPUTES = "disputes"
    """Taken away by a bank while it decides, and for good if it decides against the shop."""


@dataclass(frozen=True, slots=True)
class Posting:
    """One side of an entry; minor units, debit positive."""

    account: Account
    amount: int


class Unbalanced(Exception):
    """An entry that does not add up: a fault of this program, never of a caller's input."""


def balanced(postings: Sequence[Posting]) -> list[Posting]:
    """The postings, one per account and without zeros. Raises Unbalanced."""
    sums: Counter[Account] = Counter()
    for posting in postings:
        sums[posting.account] += posting.amount
    if sum(sums.values()):
        raise Unbalanced
    return [Posting(account, amount) for account, amount in sums.items() if amount]


def sale(subtotal: int, discount: int, shipping: int, tax: int) -> list[Posting]:
    """What an order's money is for; credits. Tax is shared by goods and shipping by their size."""
    goods_tax, shipping_tax = allocate(tax, [subtotal - discount, shipping])
    return [
        Posting(Account.SALES, -(subtotal - goods_tax)),
        Posting(Account.DISCOUNTS, discount),
        Posting(Account.SHIPPING, -(shipping - shipping_tax)),
        Posting(Account.TAX, -tax),
    ]


def moved(source: Account, target: Account, amount: int) -> list[Posting]:
    """`amount` leaves `source` (credit) for `target` (debit)."""
    return [Posting(target, amount), Posting(source, -amount)]


def refund_promised(amount: int, tax: int, *, has_order: bool) -> list[Posting]:
    """Owed from now on; of money without an order it is the payer's anyway."""
    if not has_order:
        return moved(Account.REFUNDS_PAYABLE, Account.UNALLOCATED, amount)
    return [
        Posting(Account.REFUNDS, amount - tax),
        Posting(Account.TAX, tax),
        Posting(Account.REFUNDS_PAYABLE, -amount),
    ]


def reversed_(postings: Sequence[Posting]) -> list[Posting]:
    """The same, posted back."""
    return [Posting(posting.account, -posting.amount) for posting in postings]
