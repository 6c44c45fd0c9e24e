"""How tasks end."""

import asyncio

from chassis.lifetime import Lifetime, end_tasks


async def test_a_task_that_missed_its_cancellation_is_cancelled_again() -> None:
    """As asyncio.wait_for before Python 3.12 misses one that comes when what it waits for is done."""
    missed = 0

    async def forgetful() -> None:
        nonlocal missed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                missed += 1
                if missed > 1:
                    raise

    task = asyncio.create_task(forgetful())
    await asyncio.sleep(0)
    await end_tasks([task])
    assert task.cancelled()
    assert missed == 2


async def test_the_end_of_a_lifetime_waits_for_what_its_tasks_clean_up() -> None:
    lifetime, cleaned = Lifetime(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("up")

    lifetime.supervise("work", work())
    await asyncio.sleep(0)
    await lifetime.cancel_supervised()
    assert cleaned == ["up"]
    assert lifetime.failure is None
