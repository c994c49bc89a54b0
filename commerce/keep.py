"""Keeping the answer of a request in the very transaction of its effect.

Responsible for one small contract: whoever changes something takes `keep`, and calls it with the
open transaction and the result before the commit. What stands behind it (an Idempotency-Key) is the
caller's. It must not know HTTP, and it does not know the database: a transaction is opaque here.

Why so: an answer that is stored after the effect is lost when the process dies in between, and the
repetition is then carried out a second time. Inside the transaction there is no in between.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

Keep = Callable[[Any, T], Awaitable[None]]
"""(open transaction, result): stores the answer to the request."""


async def keep_answer(keep: Keep[T] | None, transaction: Any, result: T) -> T:
    """The last line of a transaction: keeps the answer if somebody wants that, and returns it."""
    if keep is not None:
        await keep(transaction, result)
    return result
