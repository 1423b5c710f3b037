"""What clients do that mean no good, or have bad luck. Each attack is a function.

    python -m faults.attacks NAME HOST PORT SEED

A process of its own. It prints what came of the attack as a line of JSON, and fails loudly when
the server did not do as it should. An attack that calls `hold` prints `holding` when it has its
connections where it wants them, and goes on when a line on stdin tells it to. What is random is
decided by the seed and the number of the connection alone.

Every fault comes some hundreds of times: the server has 128 receive buffers, and would hang if it
lost one each time. Messages that are malformed are in `malformed.py`.
"""

import asyncio
import contextlib
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from faults import malformed
from faults.clients import Address, Peer, check, crowd, request

Attack = Callable[[Address, int], Awaitable[Counter[str]]]

# How long an attack goes on that has no end of its own.
SECONDS = 3.0
IDLE = 5000
DROPPED = 10_002
GARBAGE = 20_000
FLOOD_MIB = 200

ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    """Can be asked for by its name."""
    ATTACKS[function.__name__] = function
    return function


async def hold() -> None:
    """Tells the test that everything is in place, and waits until it has looked."""
    print("holding", flush=True)
    line = await asyncio.to_thread(sys.stdin.readline)
    check(line != "", "the test has gone")


# Connections that do nothing.


@attack
async def idle(address: Address, seed: int) -> Counter[str]:
    """Keep-alive connections, each between two requests; then the second one on each."""
    asked = request("/hello")
    async with contextlib.AsyncExitStack() as stack:
        peers: list[Peer] = []

        async def come(number: int) -> None:
            peers.append(peer := await stack.enter_async_context(Peer(address, number)))
            await peer.send(asked)
            await peer.expect(200, b"hello")

        async def again(number: int) -> None:
            await peers[number].send(asked)
            await peers[number].expect(200, b"hello")

        await crowd(IDLE, 50, come)
        await hold()
        await crowd(IDLE, 50, again)
    return Counter(connections=IDLE)


@attack
async def silent(address: Address, seed: int) -> Counter[str]:
    """Connections that never say anything; a third each is closed, reset, and asks after all."""
    async with contextlib.AsyncExitStack() as stack:
        peers: list[Peer] = []

        async def come(number: int) -> None:
            peers.append(await stack.enter_async_context(Peer(address, number)))

        async def go(number: int) -> None:
            if number % 3 == 0:
                await peers[number].send(request("/hello"))
                await peers[number].expect(200, b"hello")
            elif number % 3 == 1:
                peers[number].reset()

        await crowd(2000, 50, come)
        await hold()
        await crowd(2000, 50, go)
    return Counter(connections=2000)


# Connections that come and go.


@attack
async def dropped(address: Address, seed: int) -> Counter[str]:
    """Opened and closed or reset without a word; some while they are in the accept queue."""
    outcomes: Counter[str] = Counter()

    async def one(number: int) -> None:
        async with Peer(address, number) as peer:
            if number % 2:
                peer.reset()
        outcomes["reset" if number % 2 else "closed"] += 1

    rounds, in_queue = 3, 600
    for _ in range(rounds):
        # The loop is blocked, nobody accepts, and the backlog is 1024: they are in the queue.
        async with Peer(address, 0) as blocking:
            await blocking.send(request("/block?seconds=0.15"))
            await asyncio.sleep(0.02)
            await crowd(in_queue, 300, one)
            outcomes["in the queue"] += in_queue
            await blocking.expect(200, b"blocked")
        await crowd(DROPPED // rounds - in_queue, 100, one)
    return outcomes


@attack
async def aborted_uploads(address: Address, seed: int) -> Counter[str]:
    """Uploads that end in the middle, by a close or a reset, read by the application or not."""
    outcomes: Counter[str] = Counter()

    async def one(number: int) -> None:
        chooser = random.Random(f"{seed}/{number}")
        target = chooser.choice(["/sink", "/hello"])
        framing = chooser.choice(["Content-Length: 10000000", "Transfer-Encoding: chunked"])
        data = b"10000\r\n" + bytes(chooser.choice([0, 1, 100, 20_000, 60_000]))
        async with Peer(address, number) as peer:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                await peer.send(request(target, framing, method="POST") + data)
                if chooser.random() < 0.5:
                    await asyncio.sleep(chooser.random() / 20)
                if chooser.random() < 0.3:
                    peer.shut_down()
                    await peer.read_to_end()
            if number % 2:
                peer.reset()
        outcomes["reset" if number % 2 else "closed"] += 1

    await crowd(5000, 100, one)
    return outcomes


@attack
async def reset_responses(address: Address, seed: int) -> Counter[str]:
    """Resets and closes in the middle of an answer of 200 MB."""
    outcomes: Counter[str] = Counter()

    async def one(number: int) -> None:
        chooser = random.Random(f"{seed}/{number}")
        async with Peer(address, number) as peer:
            await peer.send(request(f"/flood?size={FLOOD_MIB}"))
            for _ in range(chooser.randrange(4)):
                check(await peer.receive() != b"", "the answer ended early")
            if number % 2:
                peer.reset()
        outcomes["reset" if number % 2 else "closed"] += 1

    await crowd(2000, 20, one)
    return outcomes


@attack
async def half_closes(address: Address, seed: int) -> Counter[str]:
    """Our side is shut down at each stage; what was asked for in full is answered in full."""
    large = request("/flood?size=1", "Connection: close")
    cases: dict[str, tuple[bytes, int, int]] = {
        # What is sent, how much comes back at least and at most: heads are some 150 bytes.
        "after a request": (request("/hello"), 50, 300),
        "after three": (request("/hello") * 3, 150, 900),
        "after an upload": (
            request("/sink", "Content-Length: 3", method="POST", body=b"abc"),
            50,
            300,
        ),
        "before a large answer": (large, 1 << 20, (1 << 20) + 300),
        "silent": (b"", 0, 0),
        "in a head": (request("/hello")[:-2], 0, 300),
        "in a body": (
            request("/sink", "Content-Length: 9", method="POST", body=b"abc"),
            0,
            300,
        ),
        "in a chunk": (
            request("/sink", "Transfer-Encoding: chunked", method="POST", body=b"9\r\nabc"),
            0,
            300,
        ),
    }
    outcomes: Counter[str] = Counter()

    async def one(number: int) -> None:
        name = list(cases)[number % len(cases)]
        data, least, most = cases[name]
        async with Peer(address, number) as peer:
            await peer.send(data)
            peer.shut_down()
            answer = await peer.read_to_end()
        check(least <= len(answer) <= most, f"half-close {name}: {len(answer)} bytes: {answer!r}")
        outcomes["half-closed " + name] += 1

    await crowd(250 * len(cases), 100, one)
    return outcomes


# Slow ones.


async def drip(peers: list[Peer], datas: list[bytes]) -> None:
    """Sends a byte on each connection, then the next on each, and so on."""
    for position in range(max(map(len, datas))):
        began = time.monotonic()
        for peer, data in zip(peers, datas, strict=True):
            if position < len(data):
                await peer.send(data[position : position + 1])
        await asyncio.sleep(max(0.0, 0.04 - (time.monotonic() - began)))


@attack
async def slow_heads(address: Address, seed: int) -> Counter[str]:
    """Heads that come byte by byte; each is answered."""
    data = request("/hello", "X-Slow: very")
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(Peer(address, n)) for n in range(400)]
        await drip(peers, [data] * len(peers))
        for peer in peers:
            await peer.expect(200, b"hello")
    return Counter(connections=len(peers))


@attack
async def slow_bodies(address: Address, seed: int) -> Counter[str]:
    """Bodies that come byte by byte, with a length or chunked; each is answered."""
    bodies = [
        (request("/sink", "Content-Length: 60", method="POST"), b"x" * 60, b"60"),
        (
            request("/sink", "Transfer-Encoding: chunked", method="POST"),
            b"1\r\nx\r\n" * 10 + b"0\r\n\r\n",
            b"10",
        ),
    ]
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(Peer(address, n)) for n in range(400)]
        chosen = [bodies[number % len(bodies)] for number in range(len(peers))]
        for peer, (head, _, _) in zip(peers, chosen, strict=True):
            await peer.send(head)
        await drip(peers, [body for _, body, _ in chosen])
        for peer, (_, _, length) in zip(peers, chosen, strict=True):
            await peer.expect(200, length)
    return Counter(connections=len(peers))


@attack
async def not_reading(address: Address, seed: int) -> Counter[str]:
    """Answers of 200 MB that nobody takes; meanwhile one client takes the whole of its own."""
    async with contextlib.AsyncExitStack() as stack:
        peers = [
            await stack.enter_async_context(Peer(address, number, buffers=4096))
            for number in range(50)
        ]
        for peer in peers:
            await peer.send(request(f"/flood?size={FLOOD_MIB}"))
        async with Peer(address, len(peers)) as reader:
            await reader.send(request(f"/flood?size={FLOOD_MIB}", "Connection: close"))
            length = 0
            while piece := await reader.receive():
                length += len(piece)
        check(0 <= length - (FLOOD_MIB << 20) < 300, f"{length} bytes came")
        await hold()
        for number, peer in enumerate(peers):
            if number % 2:
                peer.reset()
    return Counter(connections=len(peers))


# Those that take all they can get.


@attack
async def pipelining_without_reading(address: Address, seed: int) -> Counter[str]:
    """Requests without end on each connection, and no answer is ever taken."""
    data = request("/page") * 100
    outcomes: Counter[str] = Counter()

    async def one(peer: Peer) -> None:
        with contextlib.suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
            async with asyncio.timeout(SECONDS):
                while True:
                    await peer.send(data)
                    outcomes["kB"] += len(data)
                    await asyncio.sleep(0)

    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(Peer(address, number)) for number in range(8)]
        await asyncio.gather(*map(one, peers))
        await hold()
    outcomes["kB"] //= 1000
    return outcomes


@attack
async def pipelining(address: Address, seed: int) -> Counter[str]:
    """Requests without end on each connection, whose answers are taken as they come."""
    data = request("/hello") * 100
    outcomes: Counter[str] = Counter()

    async def send(peer: Peer, until: float) -> None:
        while time.monotonic() < until:
            await peer.send(data)
            outcomes["requests"] += 100
        peer.shut_down()

    async def one(number: int) -> None:
        async with (
            # Not megabytes of requests that are still to be answered when time is up.
            Peer(address, number, buffers=64 * 1024) as peer,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(send(peer, time.monotonic() + SECONDS))
            answers = 0
            rest = b""
            while piece := await peer.receive():
                rest += piece
                found = rest.count(b"\r\n\r\nhello")
                answers += found
                rest = rest[rest.rfind(b"hello") + 5 :] if found else rest
            outcomes["answers"] += answers

    await crowd(4, 4, one)
    check(outcomes["answers"] == outcomes["requests"], f"some are missing: {outcomes}")
    return outcomes


@attack
async def uploading(address: Address, seed: int) -> Counter[str]:
    """Uploads without end, read by the application on half of the connections."""
    outcomes: Counter[str] = Counter()
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    until = time.monotonic() + SECONDS

    async def one(number: int) -> None:
        target = "/sink" if number % 2 else "/hello"
        while time.monotonic() < until:
            async with Peer(address, number) as peer:
                head = request(target, "Transfer-Encoding: chunked", method="POST")
                # An upload that nobody reads is answered, and at some point the connection cut.
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    await peer.send(head)
                    while time.monotonic() < until:
                        await peer.send(chunk)
                        outcomes["MB"] += len(chunk)
                        await asyncio.sleep(0)
                outcomes["uploads"] += 1

    await crowd(6, 6, one)
    outcomes["MB"] //= 1_000_000
    check(outcomes["MB"] > 10, f"nothing came through: {outcomes}")
    return outcomes


@attack
async def expectations(address: Address, seed: int) -> Counter[str]:
    """`Expect: 100-continue` as it is meant, and in each way that it is not."""
    outcomes: Counter[str] = Counter()

    def asking(target: str, version: str = "1.1", expect: str = "100-continue") -> bytes:
        headers = (f"Expect: {expect}", "Content-Length: 3")
        return request(target, *headers, method="POST", version=version)

    async def asks_and_waits(peer: Peer) -> None:
        await peer.send(asking("/sink"))
        await peer.expect(100)
        await peer.send(b"abc")
        await peer.expect(200, b"3")

    async def does_not_wait(peer: Peer) -> None:
        await peer.send(asking("/sink") + b"abc")
        status, _ = await peer.read_answer()
        if status == 100:
            await peer.expect(200, b"3")

    async def is_not_wanted(peer: Peer) -> None:
        await peer.send(asking("/hello"))
        await peer.expect(200, b"hello")

    async def is_not_wanted_and_pipelined(peer: Peer) -> None:
        await peer.send(asking("/hello") + b"abc" + request("/hello"))
        await peer.expect(200, b"hello")
        # Either the three bytes were taken for what they are, or the connection is at its end.
        rest = await peer.receive()
        check(rest == b"" or rest.startswith(b"HTTP/1.1 200 "), f"then came {rest[:100]!r}")

    async def never_sends(peer: Peer) -> None:
        await peer.send(asking("/sink"))
        await peer.expect(100)

    async def shuts_down(peer: Peer) -> None:
        await peer.send(asking("/sink"))
        await peer.expect(100)
        peer.shut_down()
        await peer.read_to_end()

    async def resets(peer: Peer) -> None:
        await peer.send(asking("/sink"))
        await peer.expect(100)
        peer.reset()

    async def is_of_1999(peer: Peer) -> None:
        await peer.send(asking("/sink", version="1.0") + b"abc")
        await peer.expect(200, b"3")

    async def expects_tea(peer: Peer) -> None:
        await peer.send(asking("/sink", expect="tea"))
        await peer.expect(417)

    games = [
        asks_and_waits,
        does_not_wait,
        is_not_wanted,
        is_not_wanted_and_pipelined,
        never_sends,
        shuts_down,
        resets,
        is_of_1999,
        expects_tea,
    ]

    async def one(number: int) -> None:
        game = games[number % len(games)]
        async with Peer(address, number) as peer:
            try:
                await game(peer)
            except AssertionError as error:
                raise AssertionError(f"{game.__name__}: {error}") from error
        outcomes[game.__name__] += 1

    await crowd(500 * len(games), 100, one)
    return outcomes


# Malformed ones.


@attack
async def garbage(address: Address, seed: int) -> Counter[str]:
    """Random bytes, and requests that were right before some of their bytes were changed."""
    outcomes: Counter[str] = Counter()

    async def one(number: int) -> None:
        outcomes[await malformed.send_garbage(address, seed, number)] += 1

    await crowd(GARBAGE, 100, one)
    return outcomes


@attack
async def bombs(address: Address, seed: int) -> Counter[str]:
    """Messages without end: each is refused long before its client has had enough."""
    outcomes: Counter[str] = Counter()
    names = list(malformed.BOMBS)

    async def one(number: int) -> None:
        name = names[number % len(names)]
        status = await malformed.send_bomb(address, number, name)
        outcomes[f"{name}: {status}"] += 1

    await crowd(100 * len(names), 40, one)
    return outcomes


def main() -> None:
    name, host, port, seed = sys.argv[1:5]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    outcomes = asyncio.run(run(name, (host, int(port)), int(seed)))
    print(json.dumps(outcomes), flush=True)


async def run(name: str, address: Address, seed: int) -> Counter[str]:
    """One attack."""
    return await ATTACKS[name](address, seed)


if __name__ == "__main__":
    main()
