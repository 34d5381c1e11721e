"""Retries, a timeout, and what a failure leaves behind.

    perdure run examples/retries.py main --name orders

`charge` fails now and then and is tried again; attempts are counted in the store, so a crash gives no extra ones.
`reserve`, which had succeeded, is not executed again with it. An order that can never work is not retried at all.
"""

from __future__ import annotations

import random

import perdure
from perdure.errors import NonRecoverableError

env = perdure.TaskEnvironment(name="shop")


@perdure.trace
async def reserve(order: int) -> str:
    print(f"order {order}: reserved")
    return f"reservation-{order}"


@perdure.trace
async def call_bank(reservation: str) -> str:
    # Inside a trace plain randomness is fine: only the outcome is recorded.
    if random.random() < 0.6:
        raise ConnectionError("the bank did not answer")
    return f"paid {reservation}"


@env.task(retries=9, timeout=30)
async def charge(order: int) -> str:
    if order < 0:
        raise NonRecoverableError(f"there is no order {order}")
    reservation = await reserve(order)
    print(f"order {order}: asking the bank")
    return await call_bank(reservation)


@env.task
async def main(orders: int = 3) -> list[str]:
    receipts = []
    for order in [*range(1, orders + 1), -1]:
        try:
            receipts.append(await charge(order))
        except (ConnectionError, NonRecoverableError) as error:
            receipts.append(f"order {order} failed: {error}")
    return receipts


if __name__ == "__main__":
    print("\n".join(perdure.run(main).outputs()[0]))
