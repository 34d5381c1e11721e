"""Count the words of a large text with the tools that every system has: awk, sort, tar and gzip in containers.

Nothing in the image knows of perdure. Files go from one container to the next without a copy; what a container has
given is recorded, so whatever dies (this process, the machine), the finished parts are not counted again.

    perdure run examples/word_counts.py main --name words

Needs Docker or Podman, and some 300 MB of disk. Kill it at any moment and type the same line again: a container that
is running is joined, not started a second time. WORDS_IMAGE names another image than `busybox:1.36`.
"""

from __future__ import annotations

import itertools
import os
import random
import string
from dataclasses import dataclass
from pathlib import Path

import perdure
from perdure.extras import ContainerTask
from perdure.io import Dir, File

IMAGE = os.environ.get("WORDS_IMAGE", "busybox:1.36")


@dataclass
class Report:
    words: int
    distinct: int
    most_frequent: list[tuple[str, int]]
    counts: File
    archive: File


# ----------------------------------------------------------------------------------- programs in an image, as functions


def shell(name: str, script: str, inputs: dict[str, type], outputs: dict[str, type]) -> ContainerTask:
    """A shell script as a task. Its inputs lie in /var/inputs and cannot be changed; it writes to /var/outputs."""
    return ContainerTask(
        name=name,
        image=IMAGE,
        command=["/bin/sh", "-euc", script],
        inputs=inputs,
        outputs=outputs,
        network="none",
        retries=1,
    )


split = shell(
    "split",
    """
    mkdir /var/outputs/parts
    lines=$(wc -l < /var/inputs/text)
    parts=$(cat /var/inputs/parts)
    each=$(( (lines + parts - 1) / parts ))
    awk '{ print > sprintf("/var/outputs/parts/%03d", (NR - 1) / '$each') }' /var/inputs/text
    echo "$lines lines in $(ls /var/outputs/parts | wc -l) parts"
    """,
    inputs={"text": File, "parts": int},
    outputs={"parts": Dir},
)

count = shell(
    "count",
    """
    tr A-Z a-z < /var/inputs/part | tr -c a-z ' ' |
        awk '{ for (i = 1; i <= NF; i++) seen[$i]++ } END { for (word in seen) print word, seen[word] }' |
        sort > /var/outputs/counts
    echo "$(wc -l < /var/outputs/counts) distinct words"
    """,
    inputs={"part": File},
    outputs={"counts": File},
)

merge = shell(
    "merge",
    """
    cat /var/inputs/counts/* |
        awk '{ seen[$1] += $2 } END { for (word in seen) print word, seen[word] }' |
        sort -k 2,2nr -k 1,1 > /var/outputs/merged.txt
    awk '{ words += $2 } END { print words }' /var/outputs/merged.txt > /var/outputs/words
    wc -l < /var/outputs/merged.txt > /var/outputs/distinct
    """,
    inputs={"counts": list[File]},  # in a directory, as 0, 1, 2, ...
    outputs={"merged": File, "words": int, "distinct": int},
)

pack = shell(
    "pack",
    """
    cd /var/inputs
    tar -cf - counts parts | gzip -1 > /var/outputs/archive.tar.gz
    """,
    inputs={"counts": File, "parts": Dir},
    outputs={"archive": File},
)

tools = perdure.TaskEnvironment.from_task("tools", split, count, merge, pack)
env = perdure.TaskEnvironment(name="words", depends_on=[tools])


# ------------------------------------------------------------------------------------ steps in Python: recorded once


@perdure.trace
def write_text(megabytes: int, seed: int) -> File:
    """A text in which, as in any language, few words are frequent and most are rare."""
    chance = random.Random(seed)
    words = ["".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, 10))) for _ in range(20_000)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    sentences = [
        " ".join(chance.choices(words, cum_weights=weights, k=chance.randint(4, 30))).capitalize() + ".\n"
        for _ in range(20_000)
    ]
    path = Path(f"words-{os.getpid()}.txt")
    try:
        with path.open("w") as stream:
            while stream.tell() < megabytes * 1_000_000:
                stream.writelines(chance.choices(sentences, k=1000))
        return File.from_local(path)  # a copy is kept beside the journal
    finally:
        path.unlink(missing_ok=True)


@perdure.trace
def first_lines(counts: File, lines: int) -> list[tuple[str, int]]:
    with counts.open("r") as stream:
        found = [line.split() for line, _ in zip(stream, range(lines), strict=False)]
    return [(word, int(times)) for word, times in found]


# -------------------------------------------------------------------------------------------------------- the workflow


@env.task
async def main(megabytes: int = 100, parts: int = 8, at_once: int = 4, seed: int = 1) -> Report:
    """Write a text of some megabytes, and count its words in `parts` containers, `at_once` at a time."""
    text = await write_text.aio(megabytes, seed)
    pieces = await split(text=text, parts=parts)
    counts = [each async for each in perdure.map.aio(count, pieces.files().values(), concurrency=at_once)]
    merged = await merge(counts=counts)
    packed = await pack(counts=merged.merged, parts=pieces)
    return Report(
        words=merged.words,
        distinct=merged.distinct,
        most_frequent=await first_lines.aio(merged.merged, 10),
        counts=merged.merged,
        archive=packed,
    )


if __name__ == "__main__":
    report = perdure.with_runcontext(name="words").run(main).result
    print(f"{report.words:,} words, {report.distinct:,} of them distinct")
    for word, times in report.most_frequent:
        print(f"{times:>9,}  {word}")
    print(f"all of them: {report.counts.path}\nand packed: {report.archive.path}")
