"""The example of Flyte's page on durable time, as printed there; only its import line says `perdure`.

Kill it during the hour and run it again under the same name: it sleeps what is left of the hour, or not at all.

    perdure run examples/flyte_extras.py main --name hour
"""

import perdure as flyte

env = flyte.TaskEnvironment("env")


def my_work() -> None:
    """Stands for anything; as in the original it is no trace, so a replay passes through it again."""
    print("working")


@env.task
async def main():
    # Do something
    my_work()
    # Now we need to sleep for 1 hour before proceeding.
    await flyte.durable.sleep.aio(3600)  # Even if process crashes, it will resume and only sleep for
    # 1 hour in agregate. If the scheduling takes longer, it
    # will simply return immediately.
    # thing to be done after 1 hour
    my_work()


if __name__ == "__main__":
    flyte.with_runcontext(name="hour").run(main)
