#!/usr/bin/env python3
"""Floods a hub from one loopback address, and measures the effect on clients with other addresses.

    target/release/peerpigeon --port 8080 & python3 tests/flood.py 127.0.0.1:8080 half-open --seconds 60

With --tls, the hub speaks TLS, and newcomers and peers use wss. Certificates are not verified:

    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out crt.pem
    target/release/peerpigeon --port 8443 --tls-cert crt.pem --tls-key key.pem & python3 tests/flood.py 127.0.0.1:8443 half-open --tls

There are two kinds of flood, both from 127.0.0.2:
    half-open   5,000 sockets that send half a request line (with --tls, half a ClientHello). The flood replaces a
                socket as soon as the hub closes it, or after ten seconds
    connects    10,000 connections per second. The flood closes each connection soon after it has opened it

During the flood, the program repeats three measurements every 50 ms: a newcomer from 127.0.0.3 connects as a peer, a
probe from 127.0.0.1 requests /livez, and a peer sends a signal to another peer. These two peers have connected before
the flood. Prints the median, p99 and maximum of each measurement before and during the flood, in ms. Exits with 1 if a
measurement failed during the flood, or if a newcomer or /livez took longer than --limit. Runs only on Linux. The hub
must have its default limits.
"""

import argparse
import base64
import json
import multiprocessing
import os
import resource
import select
import socket
import ssl
import struct
import sys
import threading
import time

FLOOD, NEWCOMER, PROBE, INSIDE = "127.0.0.2", "127.0.0.3", "127.0.0.1", "127.0.0.4"


HALF = b"GET /ws?peerId=00"

# The beginning of a TLS record with a ClientHello.
HALF_HELLO = bytes([0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3]) + bytes(17)

# The TLS context of newcomers and peers, or None without TLS.
CONTEXT = None


def use_tls():
    global CONTEXT
    CONTEXT = ssl.create_default_context()
    CONTEXT.check_hostname, CONTEXT.verify_mode = False, ssl.CERT_NONE


def connect(source, to, timeout=10, context=None):
    sock = socket.socket()
    sock.settimeout(timeout)
    sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
    sock.bind((source, 0))
    sock.connect(to)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(sock, server_hostname="localhost") if context else sock


class Peer:
    """A minimal WebSocket client for the measurement."""

    def __init__(self, source, to, number):
        self.id = f"{number:040x}"
        self.sock = connect(source, to, context=CONTEXT)
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall(
            f"GET /ws?peerId={self.id} HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.read = b""
        while b"\r\n\r\n" not in self.read:
            self.more()
        head, self.read = self.read.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise ConnectionError(head.split(b"\r\n")[0].decode())
        self.hear("connected")

    def more(self):
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("closed")
        self.read += data

    def say(self, message):
        payload = json.dumps(message).encode()
        size = struct.pack("!B", 0x80 | len(payload)) if len(payload) < 126 else struct.pack("!BH", 0xFE, len(payload))
        self.sock.sendall(b"\x81" + size + bytes(4) + payload)

    def hear(self, kind):
        while True:
            while len(self.read) < 2 or len(self.read) < 2 + self.size():
                self.more()
            opcode, size = self.read[0] & 15, self.size()
            payload, self.read = self.read[2 : 2 + size], self.read[2 + size :]
            if self.wide:
                payload = payload[2:]
            if opcode == 9:
                self.sock.sendall(bytes([0x8A, 0x80 | len(payload)]) + bytes(4) + payload)
            elif opcode == 8:
                raise ConnectionError("closed by the hub")
            elif (message := json.loads(payload))["type"] == kind:
                return message

    def size(self):
        self.wide = self.read[1] == 126
        if not self.wide:
            return self.read[1]
        return 2 + struct.unpack("!H", self.read[2:4])[0] if len(self.read) >= 4 else 1 << 30


def flood_half_open(to, stop, opened, closed, half=HALF):
    """Replaces each socket as soon as the hub has closed it, or after ten seconds."""
    poll, sockets = select.epoll(), {}

    def renew():
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)
        sock.bind((FLOOD, 0))
        sock.connect_ex(to)
        sockets[sock.fileno()] = [sock, time.monotonic(), False]
        poll.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)

    def drop(number):
        poll.unregister(number)
        sockets.pop(number)[0].close()

    while not stop.value:
        for _ in range(min(500, 5000 - len(sockets))):
            renew()
            opened.value += 1
        for number, events in poll.poll(0.05):
            if events & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLIN):
                drop(number)
                closed.value += 1
            elif not sockets[number][2]:
                sockets[number][2] = True
                try:
                    sockets[number][0].send(half)
                except OSError:
                    drop(number)
        now = time.monotonic()
        for number in [number for number, (_, since, _) in list(sockets.items())[:500] if now - since > 10]:
            drop(number)


def flood_connects(to, stop, opened, closed, rate=10_000):
    start, sockets = time.monotonic(), []
    while not stop.value:
        due = int((time.monotonic() - start) * rate) - opened.value
        for _ in range(min(due, 200)):
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_IP, 24, 1)
            # The socket is closed with a reset, so that its port is free again at once.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.bind((FLOOD, 0))
            sock.connect_ex(to)
            sockets.append(sock)
            opened.value += 1
        for sock in sockets[:-500]:
            sock.close()
            closed.value += 1
        sockets = sockets[-500:]
        if due <= 0:
            time.sleep(0.001)


def timed(what, times, failures):
    since = time.monotonic()
    try:
        what()
    except OSError as error:
        failures.append(str(error))
    times.append((time.monotonic() - since) * 1000)


def measure(to, admin, seconds, first):
    times = {name: [] for name in ("newcomer", "livez", "inside")}
    failures = {name: [] for name in times}
    one, other = Peer(INSIDE, to, first), Peer(INSIDE, to, first + 1)
    for peer in (one, other):
        peer.say({"type": "announce", "networkName": "flood"})
    one.hear("peer-discovered")
    other.hear("peer-discovered")
    numbers = iter(range(first + 10, first + 1_000_000))

    def newcomer():
        Peer(NEWCOMER, to, next(numbers)).sock.close()

    def livez():
        with connect(PROBE, admin, context=CONTEXT if admin == to else None) as sock:
            sock.sendall(b"GET /livez HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
            if not sock.recv(100).startswith(b"HTTP/1.1 200"):
                raise ConnectionError("/livez is not 200")

    def inside():
        one.say({"type": "offer", "targetPeerId": other.id, "networkName": "flood", "data": {}})
        other.hear("offer")

    end = time.monotonic() + seconds

    def repeat(name, what):
        while time.monotonic() < end:
            timed(what, times[name], failures[name])
            time.sleep(0.05)

    threads = [threading.Thread(target=repeat, args=pair) for pair in zip(times, (newcomer, livez, inside))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, failures


def report(title, times, failures):
    for name, all_times in times.items():
        ordered = sorted(all_times)
        at = lambda share: ordered[min(int(share * len(ordered)), len(ordered) - 1)]
        failed = f"  {len(failures[name])} failed: {failures[name][0]}" if failures[name] else ""
        print(f"{title:8} {name:9} {len(ordered):6} times  median {at(0.5):7.2f}  p99 {at(0.99):7.2f}  max {ordered[-1]:7.2f}{failed}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("hub", help="HOST:PORT")
    parser.add_argument("flood", choices=["half-open", "connects"])
    parser.add_argument("--admin", help="HOST:PORT of /livez if the hub has an ADMIN_PORT (without TLS)")
    parser.add_argument("--tls", action="store_true", help="use TLS for HOST:PORT")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--limit", type=float, default=200, help="maximum time of a newcomer and of /livez, in ms")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    place = lambda text: (text.rsplit(":", 1)[0], int(text.rsplit(":", 1)[1]))
    to = place(options.hub)
    admin = place(options.admin) if options.admin else to
    if options.tls:
        use_tls()

    quiet = measure(to, admin, min(5, options.seconds), 1 << 40)
    stop, opened, closed = (multiprocessing.Value("q", 0, lock=False) for _ in range(3))
    target = flood_half_open if options.flood == "half-open" else flood_connects
    how = (HALF_HELLO,) if options.tls and options.flood == "half-open" else ()
    process = multiprocessing.Process(target=target, args=(to, stop, opened, closed, *how), daemon=True)
    process.start()
    time.sleep(1)
    flooded = measure(to, admin, options.seconds, 1 << 41)
    stop.value = 1
    process.join(5)
    report("before", *quiet)
    report("flooded", *flooded)
    print(f"flood    {opened.value} connections, {opened.value / (options.seconds + 1):.0f} a second, {closed.value} closed")
    times, failures = flooded
    slow = [name for name in ("newcomer", "livez") if max(times[name]) > options.limit or failures[name]]
    slow += ["inside"] if failures["inside"] else []
    if slow:
        sys.exit(f"these measurements failed or were too slow: {', '.join(slow)}")


if __name__ == "__main__":
    main()
