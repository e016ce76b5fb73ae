"""Tests a hub with Python `websockets`: many peers that join at once, and all ways in which a client or the hub can end.

STORM=1000 sets the number of peers in the largest test (0 skips it). SLOW=1 adds tests that take minutes.
"""

import asyncio
import base64
import json
import os
import resource
import secrets
import signal
import socket
import ssl
import struct
import sys
import time
import unittest
from contextlib import AsyncExitStack
from unittest import IsolatedAsyncioTestCase

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from hub import Hub

DEADLINE_SECS = 10
TAKEOVER_GRACE_SECS = 2
# Maximum time until a leave arrives. A hub notices a closed socket at once, so this is a reserve for busy machines.
NOTICED_SECS = 5
STORM = int(os.environ.get("STORM", "1000"))
SLOW = os.environ.get("SLOW") == "1"

# The default MAX_CONNECTIONS of 1,000 is too low for the largest test.
CROWD = {"MAX_CONNECTIONS": "20000"}


def new_id():
    return secrets.token_hex(20)


class Peer:
    """A client that counts the joins and leaves it receives."""

    def __init__(self, hub, network="n", peer_id=None):
        self.hub = hub
        self.network = network
        self.id = peer_id or new_id()
        self.discovered = {}
        self.left = {}
        self.others = []
        self.changed = asyncio.Event()
        self.reader = None

    async def open(self):
        # No proxy is used, because the hub is on this machine. The queue of received frames is not limited, because a
        # limit would make clients read slowly.
        self.socket = await connect(
            f"{self.hub.ws}/ws?peerId={self.id}",
            compression=None, max_queue=None, max_size=None, open_timeout=60, ping_interval=None, proxy=None,
        )
        self.connected = json.loads(await asyncio.wait_for(self.socket.recv(), DEADLINE_SECS))
        assert self.connected["type"] == "connected", self.connected
        self.reader = asyncio.create_task(self.read())
        return self

    async def join(self):
        await self.open()
        await self.say("announce")
        return self

    async def say(self, kind, **more):
        await self.socket.send(json.dumps({"type": kind, "networkName": self.network, **more}))

    async def read(self):
        try:
            async for text in self.socket:
                # The largest test causes a million of these messages, so the id is cut out without parsing the JSON.
                if text.startswith('{"type":"peer-discovered"'):
                    at = text.index('"peerId":"') + 10
                    subject = text[at:at + 40]
                    self.discovered[subject] = self.discovered.get(subject, 0) + 1
                else:
                    message = json.loads(text)
                    if message["type"] == "peer-disconnected":
                        subject = message["data"]["peerId"]
                        self.left[subject] = self.left.get(subject, 0) + 1
                    else:
                        self.others.append(message)
                self.changed.set()
        except ConnectionClosed:
            pass
        self.changed.set()

    async def until(self, done, what, secs=DEADLINE_SECS):
        """Waits until `done()` returns true. Calls it after each message."""
        async def look():
            while not done():
                self.changed.clear()
                await self.changed.wait()
        try:
            await asyncio.wait_for(look(), secs)
        except TimeoutError:
            raise AssertionError(
                f"not within {secs} s: {what} "
                f"(discovered {len(self.discovered)}, left {len(self.left)}, others {self.others[-3:]})"
            ) from None

    async def hears(self, peer_id, secs=DEADLINE_SECS):
        await self.until(lambda: peer_id in self.discovered, f"discovery of {peer_id}", secs)

    async def hears_leave(self, peer_id, secs=DEADLINE_SECS):
        await self.until(lambda: peer_id in self.left, f"leave of {peer_id}", secs)

    def vanish(self):
        """Resets the TCP connection, without a close frame and without a FIN."""
        linger_zero(self.socket.transport.get_extra_info("socket"))
        self.socket.transport.abort()

    async def close(self):
        await self.socket.close()
        await self.reader


def linger_zero(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class HalfOpen:
    """A hand-written WebSocket that connects and then neither reads nor answers, like a peer whose network has failed."""

    def __init__(self, hub, network="n"):
        self.id = new_id()
        self.socket = socket.create_connection(("127.0.0.1", hub.port), timeout=DEADLINE_SECS)
        if hub.ws.startswith("wss:"):
            self.socket = ssl.create_default_context().wrap_socket(self.socket, server_hostname="127.0.0.1")
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self.socket.sendall(
            f"GET /ws?peerId={self.id} HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            more = self.socket.recv(4096)
            assert more, head
            head += more
        assert head.startswith(b"HTTP/1.1 101"), head
        self.unread = head.split(b"\r\n\r\n", 1)[1]
        text = json.dumps({"type": "announce", "networkName": network}).encode()
        assert len(text) < 126
        mask = secrets.token_bytes(4)
        self.socket.sendall(
            bytes([0x81, 0x80 | len(text)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text))
        )

    def close_code(self):
        """Reads all unread data up to the hub's close frame. Returns its code."""
        data = self.unread
        while True:
            more = self.socket.recv(65536)
            data += more
            at = 0
            while len(data) >= at + 2:
                length, head = data[at + 1] & 0x7F, 2
                if length == 126:
                    if len(data) < at + 4:
                        break
                    length, head = struct.unpack(">H", data[at + 2:at + 4])[0], 4
                if len(data) < at + head + length:
                    break
                if data[at] & 0x0F == 8:
                    return struct.unpack(">H", data[at + head:at + head + 2])[0]
                at += head + length
            assert more, "the connection ended without a close frame"


async def crowd(hub, size):
    """Lets this number of peers join one network as fast as possible. Waits until each has discovered all others."""
    peers = await asyncio.gather(*(Peer(hub).open() for _ in range(size)))
    started = time.monotonic()
    await asyncio.gather(*(peer.say("announce") for peer in peers))
    deadline = DEADLINE_SECS + size * size / 10_000
    await asyncio.gather(*(
        peer.until(lambda peer=peer: len(peer.discovered) >= size - 1, f"{size - 1} discoveries", deadline)
        for peer in peers
    ))
    took = time.monotonic() - started
    print(f"# {size} peers: {size * (size - 1)} discoveries in {took:.1f} s", file=sys.stderr)
    return peers


def check_everyone_once(peers, *others):
    everyone = {peer.id for peer in (*peers, *others)}
    for peer in peers:
        assert peer.discovered.keys() == everyone - {peer.id}, f"{peer.id} knows the wrong peers"
        repeated = [subject for subject, times in peer.discovered.items() if times != 1]
        assert not repeated, f"{peer.id} discovered peers more than once: {repeated[:3]}"
        assert not peer.left, f"{peer.id} heard {list(peer.left)[:3]} leave"


async def join_and_vanish(size):
    async with Hub(**CROWD) as hub:
        peers = await crowd(hub, size)
        # The observer joins last. When the peers have discovered it, any duplicate discoveries have arrived, too.
        observer = await Peer(hub).join()
        await asyncio.gather(*(peer.hears(observer.id, 60) for peer in peers))
        await observer.until(lambda: len(observer.discovered) >= size, f"{size} discoveries", 60)
        check_everyone_once([*peers, observer])
        started = time.monotonic()
        for peer in peers:
            peer.vanish()
        await observer.until(lambda: len(observer.left) >= size, f"{size} leaves", 60)
        print(f"# {size} leaves in {time.monotonic() - started:.1f} s", file=sys.stderr)
        await asyncio.gather(*(peer.reader for peer in peers))
        # When the observer has discovered four more peers, any duplicate leaves have arrived, too.
        late = [await Peer(hub).join() for _ in range(4)]
        for peer in late:
            await observer.hears(peer.id)
            await peer.until(lambda peer=peer: len(peer.discovered) >= 4, "the observer and the other three")
        assert observer.left == {peer.id: 1 for peer in peers}, "the observer must receive exactly one leave of each peer"
        check_everyone_once(late, observer)


class AsyncTest(IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        # unittest enables asyncio's debug mode, which would double the time of the largest test.
        asyncio.get_running_loop().set_debug(False)


class Crowds(AsyncTest):
    async def test_200_join_at_once_and_vanish_at_once(self):
        await join_and_vanish(200)

    @unittest.skipUnless(STORM, "STORM=0")
    async def test_a_storm_joins_at_once_and_vanishes_at_once(self):
        await join_and_vanish(STORM)


class Ends(AsyncTest):
    async def test_a_killed_process_is_noticed(self):
        async with Hub() as hub:
            observer = await Peer(hub).join()
            child = await asyncio.create_subprocess_exec(
                sys.executable, __file__, "--client", hub.ws, stdout=asyncio.subprocess.PIPE
            )
            try:
                peer_id = (await asyncio.wait_for(child.stdout.readline(), DEADLINE_SECS)).decode().strip()
                await observer.hears(peer_id)
            finally:
                child.send_signal(signal.SIGKILL)
                await child.wait()
            await observer.hears_leave(peer_id, NOTICED_SECS)

    async def test_a_reset_connection_is_noticed(self):
        async with Hub() as hub:
            observer = await Peer(hub).join()
            peer = await Peer(hub).join()
            await observer.hears(peer.id)
            peer.vanish()
            await observer.hears_leave(peer.id, NOTICED_SECS)
            again = await Peer(hub, peer_id=peer.id).join()
            await observer.until(lambda: observer.discovered[again.id] == 2, "its return")
            self.assertEqual(observer.left, {peer.id: 1})

    async def test_a_half_open_connection_is_taken_over_by_its_own_id(self):
        async with Hub() as hub:
            observer = await Peer(hub).join()
            silent = HalfOpen(hub)
            with silent.socket:
                await observer.hears(silent.id)
                started = time.monotonic()
                back = await Peer(hub, peer_id=silent.id).join()
                took = time.monotonic() - started
                self.assertGreater(took, TAKEOVER_GRACE_SECS - 0.3)
                self.assertLess(took, TAKEOVER_GRACE_SECS + 3)
                await observer.until(lambda: observer.discovered[back.id] == 2, "its return")
                await back.hears(observer.id)
                self.assertEqual(observer.left, {silent.id: 1})
                self.assertEqual(await asyncio.to_thread(silent.close_code), 4001)
                # The old connection ends only now. The end of the old connection must not end the new connection.
                silent.socket.shutdown(socket.SHUT_RDWR)
            other = await Peer(hub).join()
            await other.hears(back.id)
            await observer.hears(other.id)
            self.assertEqual(observer.left, {silent.id: 1})

    async def test_a_client_that_answers_keeps_its_id(self):
        async with Hub() as hub:
            observer = await Peer(hub).join()
            peer = await Peer(hub).join()
            await observer.hears(peer.id)
            intruder = Peer(hub, peer_id=peer.id)
            with self.assertRaises(ConnectionClosed) as refused:
                await intruder.open()
            self.assertEqual(refused.exception.rcvd.code, 4009)
            await peer.say("answer", targetPeerId=observer.id, data="still here")
            await observer.until(lambda: any(m.get("data") == "still here" for m in observer.others), "its signal")
            self.assertEqual(observer.left, {})

    @unittest.skipUnless(SLOW, "takes about a minute; SLOW=1 runs it")
    async def test_a_half_open_connection_is_closed_as_dead(self):
        async with Hub() as hub:
            observer = await Peer(hub).join()
            silent = HalfOpen(hub)
            with silent.socket:
                await observer.hears(silent.id)
                started = time.monotonic()
                await observer.hears_leave(silent.id, 90)
                print(f"# found dead after {time.monotonic() - started:.0f} s", file=sys.stderr)
                self.assertEqual(await asyncio.to_thread(silent.close_code), 4008)
                self.assertIsNone(observer.socket.close_code, "a peer that answers pings must stay")


class HubEnds(AsyncTest):
    async def test_sigterm_says_go_away_then_closes_with_1012_and_exits_0(self):
        async with Hub() as hub:
            peers = [await Peer(hub).join() for _ in range(20)]
            for peer in peers:
                await peer.until(lambda peer=peer: len(peer.discovered) == 19, "19 discoveries")
            hub.terminate()
            for peer in peers:
                await peer.until(lambda peer=peer: peer.others, "go-away")
                (go_away,) = [message for message in peer.others if message["type"] == "go-away"]
                self.assertEqual(go_away["fromPeerId"], "system")
                self.assertEqual(go_away["targetPeerId"], peer.id)
                self.assertEqual(go_away["data"]["reason"], "draining")
                self.assertIsInstance(go_away["data"]["closeInMs"], int)
                # There is no other hub, so clients must wait for the end of the drain and the restart.
                self.assertGreaterEqual(go_away["data"]["reconnectInMs"], 1000)
                self.assertNotIn("hubs", go_away["data"], "there are no other hubs")
            for peer in peers:
                await asyncio.wait_for(peer.reader, 60)
                self.assertEqual(peer.socket.close_code, 1012)
            self.assertEqual(await asyncio.wait_for(hub.process.wait(), 60), 0)

    async def test_messages_sent_after_go_away_still_arrive(self):
        async with Hub() as hub:
            peers = [await Peer(hub).join() for _ in range(2)]
            for peer in peers:
                await peer.until(lambda peer=peer: peer.discovered, "the other")
            a, b = peers
            hub.terminate()
            await a.until(lambda: a.others, "go-away")
            await a.say("offer", targetPeerId=b.id, data="last words")
            await asyncio.wait_for(b.reader, 60)
            self.assertIn("last words", [message["data"] for message in b.others])

    async def test_all_peers_reconnect_after_a_crash_and_an_immediate_restart(self):
        size = 100
        async with AsyncExitStack() as stack:
            hub = await stack.enter_async_context(Hub(**CROWD))
            peers = await crowd(hub, size)
            await hub.kill()
            returning = [asyncio.create_task(come_back(peer)) for peer in peers]
            started = time.monotonic()
            await stack.enter_async_context(Hub(port=hub.port, **CROWD))
            print(f"# restarted in {time.monotonic() - started:.2f} s", file=sys.stderr)
            back = await asyncio.wait_for(asyncio.gather(*returning), 30)
            for peer in back:
                await peer.until(lambda peer=peer: len(peer.discovered) >= size - 1, f"{size - 1} discoveries", 30)
            check_everyone_once(back)


async def come_back(peer):
    """Reconnects as applications do: when the socket has ended, retries with the same id until it succeeds."""
    await peer.reader
    while True:
        try:
            return await Peer(peer.hub, peer_id=peer.id).join()
        except (ConnectionClosed, EOFError, InvalidHandshake, OSError):
            await asyncio.sleep(0.05)


async def client(url):
    """Runs a peer in a separate process, which the test kills."""
    async with connect(f"{url}/ws?peerId={new_id()}", proxy=None) as ws:
        connected = json.loads(await ws.recv())
        await ws.send(json.dumps({"type": "announce", "networkName": "n"}))
        print(connected["data"]["peerId"], flush=True)
        await ws.wait_closed()


def main(arguments):
    # The largest test needs a thousand sockets in this process, and a thousand in the hub, which inherits the limit.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    counts = arguments.pop(arguments.index("--counts") + 1) if "--counts" in arguments else os.devnull
    names = [argument for argument in arguments if argument != "--counts"]
    result = unittest.main(argv=[sys.argv[0], *names], verbosity=2, exit=False).result
    bad, skipped = len(result.failures) + len(result.errors), len(result.skipped)
    with open(counts, "w") as report:
        report.write(f"{result.testsRun - bad - skipped} {bad} {skipped}\n")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        asyncio.run(client(sys.argv[2]))
    else:
        sys.exit(main(sys.argv[1:]))
