"""Tests a rolling restart as an orchestrator does it: three hubs behind a balancer are replaced one by one under load.

    HUB_BIN=target/release/peerpigeon PEERS=600 DRAIN_SECS=10 .venv/bin/python rolling.py

The test checks that the hub closes its peers at moments that are spread over the drain. Each signal that a hub has read
is delivered, or its sender receives its outcome. No peer receives a discovery twice, or a leave of a peer that it does
not know. At the end, all peers know each other. The test prints how long peers were disconnected, and the outcomes of
signals.
"""

import asyncio
import json
import os
import random
import resource
import secrets
import statistics
import sys
import time
from collections import Counter

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from hub import Hub, answers, free_port

HUBS = 3
PEERS = int(os.environ.get("PEERS", "60"))
DRAIN_SECS = int(os.environ.get("DRAIN_SECS", "3"))
# Signals per second, of all peers together.
RATE = float(os.environ.get("RATE", "200"))
NETWORK = 10
# Maximum time until a receipt arrives (docs/protocol.md), with a reserve for busy machines.
RECEIPT_SECS = 6
# A signal sent while the hub's close frame is in flight is still routed, but its sender gets no receipt.
LAST_WORDS_SECS = 0.5
REST_SECS = 60


class Balancer:
    """Round robin over the ready hubs, like a Service."""

    def __init__(self):
        self.backends = {}
        self.turn = 0
        self.pipes = set()

    async def start(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        self.probe = asyncio.create_task(self.look())

    async def look(self):
        while True:
            for hub in list(self.backends):
                self.backends[hub] = await asyncio.to_thread(answers, f"{hub.http}/readyz")
            await asyncio.sleep(0.05)

    async def accept(self, reader, writer):
        for _ in range(len(self.backends)):
            ready = [hub for hub, is_ready in self.backends.items() if is_ready]
            if not ready:
                break
            self.turn += 1
            try:
                to_hub = await asyncio.open_connection("127.0.0.1", ready[self.turn % len(ready)].port)
            except OSError:
                continue
            both = asyncio.gather(self.pipe(reader, to_hub[1]), self.pipe(to_hub[0], writer))
            self.pipes.add(both)
            both.add_done_callback(self.pipes.discard)
            return
        writer.close()

    @staticmethod
    async def pipe(reader, writer):
        try:
            while data := await reader.read(64 * 1024):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.close()


class Story:
    """The recorded events of all peers."""

    def __init__(self):
        self.sent = {}  # id of a signal -> (time, connection)
        self.receipts = {}
        self.heard = Counter()
        self.wrong = []
        self.moves = []  # for each move of a peer: the time of its disconnection, and how long it was disconnected
        self.closes = Counter()


class Member:
    def __init__(self, story, balancer, network):
        self.story, self.balancer, self.network = story, balancer, network
        self.id = secrets.token_hex(20)
        self.known = set()
        self.socket = None
        self.closed_at = None
        self.connection = None

    async def live(self):
        while True:
            try:
                async with connect(
                    f"{self.balancer.url}/?peerId={self.id}", compression=None, max_queue=None, open_timeout=20, ping_interval=None, proxy=None
                ) as socket:
                    if json.loads(await socket.recv())["type"] != "connected":
                        raise AssertionError("the first message is not `connected`")
                    await self.converse(socket)
            except ConnectionClosed as closed:
                self.story.closes[closed.rcvd.code if closed.rcvd else None] += 1
            except (EOFError, InvalidHandshake, OSError, TimeoutError):
                pass
            finally:
                if self.socket is not None:
                    self.closed_at = time.monotonic()
                    self.connection["closed"] = self.closed_at
                self.socket = None
            await asyncio.sleep(0.02)

    async def converse(self, socket):
        self.known = set()
        self.connection = {"closed": None}
        await socket.send(json.dumps({"type": "announce", "networkName": self.network}))
        if self.closed_at is not None:
            self.story.moves.append((self.closed_at, time.monotonic() - self.closed_at))
        self.socket = socket
        async for text in socket:
            message = json.loads(text)
            kind, data = message["type"], message["data"]
            if kind == "peer-discovered":
                if data["peerId"] in self.known:
                    self.story.wrong.append(f"{self.id} discovered {data['peerId']} twice")
                self.known.add(data["peerId"])
            elif kind == "peer-disconnected":
                if data["peerId"] not in self.known:
                    self.story.wrong.append(f"{self.id} received the leave of {data['peerId']}, which it did not know")
                self.known.discard(data["peerId"])
            elif kind == "offer":
                self.story.heard[data] += 1
                if message["fromPeerId"] not in self.known:
                    self.story.wrong.append(f"{self.id} received a signal of {message['fromPeerId']}, which it does not know")
            elif kind == "receipt":
                if data["id"] in self.story.receipts:
                    self.story.wrong.append(f"a second receipt for {data['id']}")
                self.story.receipts[data["id"]] = data["outcome"]
            elif kind == "error":
                self.story.wrong.append(f"an error: {data}")

    async def signal(self):
        if self.socket is None or not self.known:
            return
        number = f"s{len(self.story.sent)}"
        connection = self.connection
        self.story.sent[number] = (time.monotonic(), connection)
        message = {"type": "offer", "targetPeerId": random.choice(sorted(self.known)), "networkName": self.network, "data": number, "id": number}
        try:
            await self.socket.send(json.dumps(message))
        except ConnectionClosed:
            # The library did not send the signal, because it had already noticed the close.
            del self.story.sent[number]


async def load(members):
    while True:
        await random.choice(members).signal()
        await asyncio.sleep(1 / RATE)


async def eventually(check, what, seconds):
    until = time.monotonic() + seconds
    while not check():
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.05)


def complete(members):
    networks = {}
    for member in members:
        networks.setdefault(member.network, set()).add(member.id)
    return all(member.socket is not None and member.known == networks[member.network] - {member.id} for member in members)


async def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ports = [free_port() for _ in range(HUBS)]

    def hub(place):
        others = ",".join(f"ws://127.0.0.1:{port}" for at, port in enumerate(ports) if at != place)
        return Hub(
            port=ports[place], IS_HUB="true", MESH_TOKEN="rolling", BOOTSTRAP_HUBS=others, DRAIN_SECS=str(DRAIN_SECS),
            MAX_CONNECTIONS="20000", LOG_LEVEL="warn",
        )

    balancer, story, hubs = Balancer(), Story(), [hub(place) for place in range(HUBS)]
    tasks, wrong, drains = [], [], []
    try:
        for each in hubs:
            await each.__aenter__()
            balancer.backends[each] = False
        await balancer.start()
        members = [Member(story, balancer, f"n{place // NETWORK}") for place in range(PEERS)]
        tasks += [asyncio.create_task(member.live()) for member in members]
        await eventually(lambda: complete(members), "all peers know each other before the restart", REST_SECS)
        tasks.append(asyncio.create_task(load(members)))
        await asyncio.sleep(1)

        for place in range(HUBS):
            old, began, moves = hubs[place], time.monotonic(), len(story.moves)
            old.terminate()
            code = await asyncio.wait_for(old.process.wait(), DRAIN_SECS + 15)
            drains.append((began, time.monotonic() - began, moves, len(story.moves)))
            if code != 0:
                wrong.append(f"a hub ended with {code}")
            del balancer.backends[old]
            hubs[place] = hub(place)
            await hubs[place].__aenter__()
            balancer.backends[hubs[place]] = False
            # The next hub is stopped only when the new hub is ready, as an orchestrator does it, and when all peers are
            # connected.
            await eventually(lambda: balancer.backends[hubs[place]], "the new hub is ready", 10)
            await eventually(lambda: all(member.socket is not None for member in members), "all peers are connected again", 20)
            await asyncio.sleep(1)
        tasks.pop().cancel()
        await asyncio.sleep(RECEIPT_SECS)
        await eventually(lambda: complete(members), "all peers know each other afterwards", REST_SECS)
    finally:
        for task in tasks:
            task.cancel()
        balancer.probe.cancel()
        for each in hubs:
            await each.kill()

    silent = 0
    for number, (when, connection) in story.sent.items():
        if number in story.receipts or story.heard[number]:
            continue
        silent += 1
        if connection["closed"] is None or connection["closed"] - when > LAST_WORDS_SECS:
            wrong.append(f"signal {number} was neither delivered nor answered, although its sender stayed connected")
    wrong += [f"{number} was delivered {times} times" for number, times in story.heard.items() if times > 1]
    outcomes = Counter(story.receipts.values())
    delivered_unheard = [n for n, outcome in story.receipts.items() if outcome == "delivered" and not story.heard[n]]
    # `delivered` means that the socket accepted the signal. The socket may close before its client has read it.
    if len(delivered_unheard) > max(5, len(story.sent) // 100):
        wrong.append(f"{len(delivered_unheard)} signals have the outcome `delivered`, but did not arrive")
    gaps = sorted(gap for _, gap in story.moves)
    for began, took, first, last in drains:
        at = sorted(closed - began for closed, _ in story.moves[first:last])
        busiest = max((sum(1 for other in at if when <= other < when + 0.2) for when in at), default=0)
        share = len(at) * min(1, 0.2 / max(DRAIN_SECS, 0.1))
        print(f"# a hub with {len(at)} peers ended after {took:.1f} s; {busiest} peers moved in the busiest 200 ms ({share:.1f} if spread evenly)")
        if busiest > 4 * share + 10:
            wrong.append(f"{busiest} of {len(at)} peers moved within 200 ms")
    if gaps:
        p99 = gaps[int(len(gaps) * 0.99)]
        print(f"# {len(gaps)} moves; without a hub for {statistics.median(gaps) * 1000:.0f} ms at the median, {p99 * 1000:.0f} ms at p99")
    print(f"# {len(story.sent)} signals: {dict(outcomes)}; {silent} without an outcome, sent within {LAST_WORDS_SECS} s of the close; closes {dict(story.closes)}")
    if len(story.moves) < PEERS:
        wrong.append(f"only {len(story.moves)} moves: peers did not leave every hub")
    if outcomes["delivered"] < len(story.sent) * 0.8:
        wrong.append("too few signals were delivered: the load was too small")
    wrong += story.wrong
    for what in wrong[:20]:
        print(f"WRONG: {what}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
