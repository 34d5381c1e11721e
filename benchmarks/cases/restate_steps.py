"""restate: durable steps of one handler, one after the other or all in one gather."""

from __future__ import annotations

from _common import emit, parser
from _restate import add_options, call, served


def main() -> None:
    arguments = parser(__doc__, count=1000)
    add_options(arguments)
    arguments.add_argument("--mode", choices=("sequential", "gathered"), default="sequential")
    options = arguments.parse_args()
    with served(options) as ingress:
        elapsed = call(ingress, options.mode, options.count)
    if not isinstance(elapsed, float):
        raise SystemExit(f"no figure: {elapsed!r}")
    emit(options.count / elapsed, "calls/s", count=options.count, mode=options.mode)


if __name__ == "__main__":
    main()
