from hypothesis import given
from hypothesis import strategies as st

from realtime.rate_limit import TokenBucket


def test_a_burst_then_the_rate():
    bucket = TokenBucket(10, 20, 0)
    assert sum(bucket.take(0) for _ in range(50)) == 20
    assert bucket.wait_ms() == 100
    assert not bucket.take(99)
    assert bucket.take(100)
    assert not bucket.take(100)
    assert sum(bucket.take(1_000_000) for _ in range(50)) == 20


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing():
    bucket = TokenBucket(1, 1, 10_000)
    assert bucket.take(10_000)
    assert not bucket.take(0)
    assert bucket.wait_ms() == 1000
    assert bucket.take(1000)


@given(
    rate=st.integers(1, 50),
    burst=st.integers(1, 50),
    steps=st.lists(st.integers(0, 500), max_size=200),
)
def test_no_more_than_burst_and_rate_allow_ever_pass(rate, burst, steps):
    bucket = TokenBucket(rate, burst, 0)
    now = passed = 0
    for step in steps:
        now += step
        if bucket.take(now):
            passed += 1
        else:
            wait = bucket.wait_ms()
            assert wait > 0
        assert passed <= burst + now * rate // 1000


@given(rate=st.integers(1, 50), burst=st.integers(1, 10))
def test_the_wait_that_is_told_is_exact(rate, burst):
    bucket = TokenBucket(rate, burst, 0)
    while bucket.take(0):
        pass
    wait = bucket.wait_ms()
    early = TokenBucket(rate, burst, 0)
    while early.take(0):
        pass
    assert not early.take(wait - 1)
    assert bucket.take(wait)
