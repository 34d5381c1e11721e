"""A large output: how much more memory this process takes, at its peak, while the file is collected."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from time import perf_counter

import perdure
from _common import emit, workdir
from _containers import parser, task, use
from perdure.io import File

arguments = parser(__doc__)
arguments.add_argument("--bytes", type=int, default=1 << 30)
options = arguments.parse_args()

# Noise: of zeros, the blob store would keep a hole.
giver = task(
    options, "giver", "/bin/sh", "-c", "head -c $0 /dev/urandom > /var/outputs/data", "{{.inputs.size}}",
    inputs={"size": int}, outputs={"data": File},
)  # fmt: skip
env = perdure.TaskEnvironment("bench", depends_on=[perdure.TaskEnvironment.from_task("containers", giver)])


def memory(name: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at the peak."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@env.task
async def main(size: int) -> tuple[int, float]:
    await giver(size=1)  # warm
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    started = perf_counter()
    data = await giver(size=size)
    if data.size != size:
        raise AssertionError(f"{data.size} bytes instead of {size}")
    return memory("VmHWM") - before, perf_counter() - started


if __name__ == "__main__":
    with workdir(options.dir) as directory:
        use(directory, options)
        growth, elapsed = perdure.run(main, size=options.bytes).result
    emit(growth / (1 << 20), "MiB", seconds=elapsed)
