"""A TCP proxy for faults: cuts a connection before or after COMMIT, adds delay, counts round trips."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

# SO_LINGER of zero seconds: the client gets a reset at once instead of an orderly end.
ABORT = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards 127.0.0.1:`port` to a server's port. The attributes may be set at any time.

    cut_before: a message of the client that holds these bytes is not forwarded; the connection is cut
    cut_after:  it is forwarded, the server's answer is awaited and dropped; then the connection is cut
    delay:      seconds waited before a message of the client is forwarded
    round_trips, cuts: what happened so far
    """

    def __init__(self, server_port: int) -> None:
        self.cut_before: bytes | None = None
        self.cut_after: bytes | None = None
        self.delay = 0.0
        self.round_trips = 0
        self.cuts = 0
        self._server_port = server_port
        self._links: list[_Link] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._acceptor.join()
        self._listener.close()
        for link in self._links:
            link.end()
            link.thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._links.append(_Link(self, client, server))


class _Link:
    """One client's connection: its two sockets, and a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.asked = False  # the client has spoken since the server's last answer
        self.cut_at_answer = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        answers = threading.Thread(target=self._pump, args=(self.server, self.client, self._may_answer), daemon=True)
        answers.start()
        self._pump(self.client, self.server, self._may_ask)
        answers.join()
        self.client.close()
        self.server.close()

    def _pump(self, source: socket.socket, sink: socket.socket, may_pass: Callable[[bytes], bool]) -> None:
        with suppress(OSError):
            while (data := source.recv(65536)) and may_pass(data):
                sink.sendall(data)
        self.end()

    def _may_ask(self, data: bytes) -> bool:
        time.sleep(self.proxy.delay)
        if self.proxy.cut_before is not None and self.proxy.cut_before in data:
            return self._cut()
        self.cut_at_answer = self.proxy.cut_after is not None and self.proxy.cut_after in data
        self.asked = True
        return True

    def _may_answer(self, data: bytes) -> bool:
        if self.cut_at_answer:
            return self._cut()
        self.proxy.round_trips += self.asked
        self.asked = False
        return True

    def _cut(self) -> bool:
        self.proxy.cuts += 1
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        return False

    def end(self) -> None:
        """Wake both threads. The server learns it here, else its locks would stay; the client by close()."""
        for end, direction in ((self.client, socket.SHUT_RD), (self.server, socket.SHUT_RDWR)):
            with suppress(OSError):
                end.shutdown(direction)
