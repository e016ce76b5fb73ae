#!/usr/bin/env python3
"""Runs real hubs on loopback with one fault, in the hubs or in a proxy in front of them, until Ctrl-C.

    cargo build && python3 tests/faults.py slow-link

It prints what an operator can look at: the URL of the live view, and the commands `peerpigeon top` and `peerpigeon
doctor`. These should show an operator who does not know the fault what is wrong, where, and what to do. The faults:

    slow-link       a proxy delays the link between two hubs: the round trip takes 300 ms
    starved         a hub with load gets little processor time, because busy programs share its core
    flood           one of ten peers sends 2,000 messages per second, and connects again when the hub closes it
    redis-replica   the Redis of a mesh is a replica, which no master reads
    expires         the certificate is valid for two more days
    expired         the certificate has been invalid for a day
    idle-proxy      a proxy closes each connection on which no bytes have passed for 20 s

--seconds ends the program after a time. --check also runs `top --once` and `doctor` after --seconds, and prints what
they print.
"""

import argparse
import asyncio
import base64
import datetime
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile

TOKEN = "token-of-the-operators"
UNLIMITED = {name: "0" for name in ("MAX_CONNECTIONS_PER_ADDRESS", "MAX_UNFINISHED_PER_ADDRESS", "CONNECT_RATE_PER_ADDRESS")}


class Plant:
    """The processes and tasks of one fault. They end when the fault ends."""

    def __init__(self, program, port):
        self.program, self.port = program, port
        self.processes, self.tasks = [], []
        self.work = tempfile.mkdtemp(prefix="peerpigeon-fault-")
        self.top, self.doctor = [], []

    def next_port(self):
        self.port += 1
        return self.port

    def start(self, *command, **env):
        log = open(os.path.join(self.work, f"log-{len(self.processes)}"), "wb")
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    async def hub(self, before=(), **env):
        """Starts a hub, and returns its port when it listens."""
        port = self.next_port()
        env = {**UNLIMITED, "HOST": "127.0.0.1", "PORT": str(port), "ADMIN_TOKEN": TOKEN, "LOG_FORMAT": "json", **env}
        process = self.start(*before, self.program, **env)
        await listens(port, process)
        secure = "TLS_CERT" in env
        self.top.append(f"http://127.0.0.1:{env.get('ADMIN_PORT', port)}")
        self.doctor.append(f"{'wss' if secure else 'ws'}://127.0.0.1:{port}")
        return port

    async def proxy(self, target, copy):
        """Starts a proxy in front of a port, and returns the proxy's port. `copy` forwards the bytes of one direction."""

        async def serve(reader, writer):
            try:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
            except OSError:
                writer.close()
                return
            used = [asyncio.get_running_loop().time()]
            ways = [copy(reader, far_writer, used), copy(far_reader, writer, used)]
            ways = [asyncio.ensure_future(way) for way in ways]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                pass  # The fault ends.
            for way in ways:
                way.cancel()
            # Ends both connections without a close frame or a FIN, as many proxies do.
            for end in (writer, far_writer):
                end.transport.abort()

        port = self.next_port()
        self.tasks.append(await asyncio.start_server(serve, "127.0.0.1", port))
        return port

    def run(self, work):
        self.tasks.append(asyncio.ensure_future(work))

    def end(self):
        for task in self.tasks:
            task.close() if hasattr(task, "close") else task.cancel()
        for process in self.processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.work, ignore_errors=True)


async def listens(port, process):
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"{process.args} ended with {process.returncode}")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.05)
    sys.exit(f"nothing listens at port {port}")


class Peer:
    """A peer in the network `fault` that reads everything and answers pings."""

    @classmethod
    async def connect(cls, port):
        self = cls()
        self.id = f"{random.getrandbits(160):040x}"
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        key = base64.b64encode(os.urandom(16)).decode()
        self.writer.write(
            f"GET /ws?peerId={self.id} HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = await self.reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head:
            raise ConnectionError(head)
        self.say({"type": "announce", "networkName": "fault"})
        return self

    def frame(self, opcode, payload):
        size = struct.pack("!B", 0x80 | len(payload)) if len(payload) < 126 else struct.pack("!BH", 0xFE, len(payload))
        self.writer.write(bytes([0x80 | opcode]) + size + bytes(4) + payload)

    def say(self, message):
        self.frame(1, json.dumps(message).encode())

    async def read(self):
        """Reads until the connection ends."""
        while True:
            opcode, size = await self.reader.readexactly(2)
            if size == 126:
                size = struct.unpack("!H", await self.reader.readexactly(2))[0]
            elif size == 127:
                size = struct.unpack("!Q", await self.reader.readexactly(8))[0]
            payload = await self.reader.readexactly(size)
            if opcode & 15 == 9:
                self.frame(10, payload)
            elif opcode & 15 == 8:
                raise ConnectionError("closed by the hub")


async def stay(port, act=None):
    """Keeps a peer connected, and connects it again when its connection ends."""
    while True:
        try:
            peer = await Peer.connect(port)
            if act is None:
                await peer.read()
            else:
                ways = [asyncio.ensure_future(peer.read()), asyncio.ensure_future(act(peer))]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
        except (OSError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(1)


async def slow_link(plant):
    async def late(reader, writer, _):
        waiting = asyncio.Queue(1000)
        loop = asyncio.get_running_loop()

        async def write():
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(due - loop.time())
                writer.write(data)

        writing = asyncio.ensure_future(write())
        try:
            while data := await reader.read(65536):
                await waiting.put((loop.time() + 0.15, data))
        finally:
            writing.cancel()

    mesh = {"IS_HUB": "true", "MESH_TOKEN": "of-the-mesh"}
    first = await plant.hub(**mesh)
    proxy = await plant.proxy(first, late)
    second = await plant.hub(BOOTSTRAP_HUBS=f"ws://127.0.0.1:{proxy}", **mesh)
    for port in (first, second):
        for _ in range(3):
            plant.run(stay(port))
    plant.other = f"ws://127.0.0.1:{second}"


async def starved(plant):
    core = str(max(os.sched_getaffinity(0)))
    hub = await plant.hub(before=("taskset", "-c", core, "nice", "-n", "19"), SHARDS="2")
    for _ in range(2):
        plant.start("taskset", "-c", core, sys.executable, "-c", "while True: pass")

    ids = []

    async def chat(peer):
        ids.append(peer.id)
        while True:
            for _ in range(5):
                peer.say({"type": "offer", "networkName": "fault", "targetPeerId": random.choice(ids), "data": "x" * 500})
            await peer.writer.drain()
            await asyncio.sleep(0.05)

    for _ in range(60):
        plant.run(stay(hub, chat))


async def flood(plant):
    hub = await plant.hub()
    for _ in range(9):
        plant.run(stay(hub))

    async def talk(peer):
        while True:
            for _ in range(20):
                peer.say({"type": "ping"})
            await peer.writer.drain()
            await asyncio.sleep(0.01)

    plant.run(stay(hub, talk))


async def redis_replica(plant):
    master, replica = plant.next_port(), plant.next_port()
    common = ("redis-server", "--bind", "127.0.0.1", "--save", "", "--dir", plant.work)
    await listens(master, plant.start(*common, "--port", str(master)))
    await listens(replica, plant.start(*common, "--port", str(replica), "--replicaof", f"127.0.0.1 {master}"))
    for _ in range(2):
        await plant.hub(IS_HUB="true", REDIS_URL=f"redis://127.0.0.1:{replica}")
    plant.other = plant.doctor[1]


def certificate(plant, days):
    """Issues a certificate for 127.0.0.1 that expires in `days` days."""
    at = lambda name: os.path.join(plant.work, name)
    ask = lambda *args: subprocess.run(("openssl", *args), check=True, cwd=plant.work, stderr=subprocess.DEVNULL)
    with open(at("ca.conf"), "w") as file:
        file.write(
            "[ca]\ndefault_ca=here\n[here]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=any\n"
            "x509_extensions=leaf\nunique_subject=no\n[any]\ncommonName=supplied\n[leaf]\nbasicConstraints=critical,CA:FALSE\n"
            "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
        )
    open(at("index"), "w").close()
    with open(at("serial"), "w") as file:
        file.write("01\n")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    ask("req", "-x509", *key, "-days", "30", "-subj", "/CN=Test authority", "-keyout", "ca.key", "-out", "ca.pem")
    ask("req", *key, "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "csr.pem")
    time = lambda days: (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)).strftime("%Y%m%d%H%M%SZ")
    ask("ca", "-batch", "-config", "ca.conf", "-cert", "ca.pem", "-keyfile", "ca.key", "-in", "csr.pem", "-out", "crt.pem",
        "-notext", "-startdate", time(-60), "-enddate", time(days))  # fmt: skip
    plant.ca = at("ca.pem")
    # The pages of operators are at a port without TLS, so that they can be read whatever the certificate is.
    return {"TLS_CERT": at("crt.pem"), "TLS_KEY": at("key.pem"), "ADMIN_PORT": str(plant.next_port())}


async def expires(plant):
    await plant.hub(**certificate(plant, 2.1))


async def expired(plant):
    await plant.hub(**certificate(plant, -1.1))


async def idle_proxy(plant):
    async def impatient(reader, writer, used):
        loop = asyncio.get_running_loop()
        read = asyncio.ensure_future(reader.read(65536))
        try:
            while True:
                await asyncio.wait([read], timeout=max(0.01, used[0] + 20 - loop.time()))
                if read.done():
                    if not (data := read.result()):
                        return
                    used[0] = loop.time()
                    writer.write(data)
                    read = asyncio.ensure_future(reader.read(65536))
                elif loop.time() >= used[0] + 20:
                    return
        except OSError:
            return
        finally:
            read.cancel()

    hub = await plant.hub()
    proxy = await plant.proxy(hub, impatient)
    plant.doctor = [f"ws://127.0.0.1:{proxy}"]
    for _ in range(8):
        plant.run(stay(proxy))


FAULTS = {name.replace("_", "-"): plant for name, plant in {
    "slow_link": slow_link, "starved": starved, "flood": flood, "redis_replica": redis_replica, "expires": expires,
    "expired": expired, "idle_proxy": idle_proxy,
}.items()}  # fmt: skip


async def main(options):
    plant = Plant(os.path.abspath(options.program), options.port)
    over = asyncio.Event()
    for which in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(which, over.set)
    try:
        plant.ca, plant.other = None, None
        await FAULTS[options.fault](plant)
        ca = ["--ca", plant.ca] if plant.ca else []
        other = ["--other", plant.other] if plant.other else []
        top = [plant.program, "top", *plant.top]
        doctor = [plant.program, "doctor", *other, *ca, plant.doctor[0]]
        print("live view:", *(f"{url}/dashboard" for url in plant.top), f"(token: {TOKEN})")
        print(f"ADMIN_TOKEN={TOKEN}", *top)
        print(*doctor, flush=True)
        try:
            await asyncio.wait_for(over.wait(), options.seconds)
        except asyncio.TimeoutError:
            pass
        if options.check:
            for command in ([*top, "--once"], doctor):
                print("$", *command, flush=True)
                await (await asyncio.create_subprocess_exec(*command, env={**os.environ, "ADMIN_TOKEN": TOKEN})).wait()
    finally:
        plant.end()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fault", choices=FAULTS)
    parser.add_argument("--program", default=os.environ.get("HUB_BIN", "target/debug/peerpigeon"))
    parser.add_argument("--port", type=int, default=random.randrange(9000, 30000, 10),
        help="hubs and proxies use the ports after this one")  # fmt: skip
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--check", action="store_true")
    asyncio.run(main(parser.parse_args()))
