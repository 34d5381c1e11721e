"""A run that survives being killed:  perdure run examples/hello.py main --name first"""

import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="hello")


@perdure.trace
def square(n: int) -> int:
    print("working on", n)
    return n * n


@env.task
def main(n: int = 5) -> int:
    total = 0
    for i in range(n):
        total += square(i)
        durable_sleep(2)
    return total


if __name__ == "__main__":
    print(perdure.with_runcontext(name="first").run(main).outputs()[0])
