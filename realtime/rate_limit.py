"""A token bucket: so many a second, with a burst. Pure arithmetic on a clock that is handed in.

It must not know what is limited. Tokens are counted in thousandths as integers, so that a bucket
is exact for any clock and two servers fed the same instants decide the same.
"""


class TokenBucket:
    """Allows `rate` takes a second on average and `burst` at once. Starts full."""

    __slots__ = ("_at", "_burst", "_milli", "_rate")

    def __init__(self, rate: int, burst: int, now_ms: int) -> None:
        """`rate` in takes per second, `burst` in takes; both at least 1."""
        self._rate = rate
        self._burst = burst * 1000
        self._milli = self._burst
        self._at = now_ms

    def take(self, now_ms: int) -> bool:
        """One take; False when there is none left. A clock that goes back only loses refills."""
        passed = now_ms - self._at
        self._at = now_ms
        if passed > 0:
            self._milli = min(self._burst, self._milli + passed * self._rate)
        if self._milli < 1000:
            return False
        self._milli -= 1000
        return True

    def wait_ms(self) -> int:
        """Milliseconds after the last take until the next one can succeed; 0: at once."""
        return max(0, -((self._milli - 1000) // self._rate))
