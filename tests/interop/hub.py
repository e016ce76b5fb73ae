"""Starts a hub process for each test. This is the Python version of hub.mjs."""

import asyncio
import atexit
import os
import random
import signal
import socket
import sys
import tempfile
import urllib.error
import urllib.request

READY_SECS = 10
STDERR_SHOWN = 16 * 1024

_running = set()
atexit.register(lambda: [hub.process.kill() for hub in _running if hub.process.returncode is None])


# Disables the limits per address, because all clients of a test have the same address.
UNLIMITED = {
    name: "0"
    for name in ("MAX_CONNECTIONS_PER_ADDRESS", "MAX_UNFINISHED_PER_ADDRESS", "CONNECT_RATE_PER_ADDRESS", "CONNECT_RATE")
}


class Hub:
    """A hub on a free port, or on the port of an earlier hub."""

    def __init__(self, port=None, **env):
        self.port = port or free_port()
        self.env = {**os.environ, **UNLIMITED, "HOST": "127.0.0.1", "PORT": str(self.port), **env}
        # If hubs use TLS, run.sh sets TLS_CERT, and makes Python trust the authority of the certificate.
        secure = "s" if os.environ.get("TLS_CERT") else ""
        self.ws = f"ws{secure}://127.0.0.1:{self.port}"
        self.http = f"http{secure}://127.0.0.1:{self.port}"

    async def __aenter__(self):
        self.stderr = tempfile.TemporaryFile()
        self.process = await asyncio.create_subprocess_exec(
            os.environ["HUB_BIN"], "serve", env=self.env,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=self.stderr,
        )
        _running.add(self)
        try:
            await asyncio.wait_for(self._ready(), READY_SECS)
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self

    async def __aexit__(self, kind, error, trace):
        await self.kill()
        _running.discard(self)
        if error is not None:
            self.stderr.seek(max(0, self.stderr.seek(0, os.SEEK_END) - STDERR_SHOWN))
            print(f"--- stderr of the hub:\n{self.stderr.read().decode(errors='replace')}---", file=sys.stderr)
        self.stderr.close()

    def terminate(self):
        """Stops the hub with SIGTERM. `process.wait` returns the exit code."""
        self.process.send_signal(signal.SIGTERM)

    async def kill(self):
        """Kills this hub, like a crash."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def _ready(self):
        while True:
            if self.process.returncode is not None:
                raise RuntimeError(f"the hub ended ({self.process.returncode}) before it answered")
            if await asyncio.to_thread(answers, f"{self.http}/health"):
                return
            await asyncio.sleep(0.01)


def answers(url):
    """Returns whether a GET of the URL succeeds. Uses no proxy, because the hub is on this machine."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def free_port():
    """A port below those of outgoing connections, so that none of these occupies it before the hub listens."""
    while True:
        port = random.randrange(8000, 16000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
