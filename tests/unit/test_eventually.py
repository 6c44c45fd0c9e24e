"""The one place where tests wait: it returns what held, and fails with the check's own last words."""

import pytest

from tests.harness.eventually import eventually, eventually_sync


async def test_waiting_returns_the_value_or_raises_the_last_failure() -> None:
    tries = iter(range(5))
    assert await eventually(lambda: next(tries) >= 3) is True

    def block() -> None:
        assert next(tries, 9) == 9, "not nine"

    await eventually(block)

    async def never() -> None:
        raise AssertionError("its own words")

    with pytest.raises(AssertionError, match="its own words"):
        await eventually(never, timeout_s=0.02)
    with pytest.raises(AssertionError, match="was still None"):
        eventually_sync(lambda: None, timeout_s=0.02)
    nothing: dict[str, int] = {}
    with pytest.raises(KeyError):
        await eventually(lambda: nothing["missing"])
