"""What the access log costs: instructions of the ring's thread per request, with and without it.

    cargo build --release --example hello && python3 benches/access_log.py

`--connections` asks on several connections at once, each turn of the server then serving all of
them. Needs valgrind; counts are the same on a busy machine, times would not be.
"""

import argparse
import sys
from pathlib import Path

import callgrind

COUNTS = (20_000, 60_000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hello", type=Path, default=callgrind.HELLO, help="what to measure")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--most", type=float, help="fail if the log costs more percent than this")
    arguments = parser.parse_args()
    callgrind.require()
    hello, connections = arguments.hello, arguments.connections
    without = callgrind.per_request(hello, COUNTS, connections)
    with_log = callgrind.per_request(hello, COUNTS, connections, ["--access-log"])
    cost = (with_log / without - 1) * 100
    print(f"without the access log {without:8.1f} instructions per request")
    print(f"with the access log    {with_log:8.1f} instructions per request, {cost:+.2f} %")
    if arguments.most is not None and cost > arguments.most:
        print(f"error: that is more than {arguments.most:g} %", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
