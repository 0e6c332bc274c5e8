"""The process of a worker: `python -m pipeline.runner.workers.main SOCKET`, started by a driver."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue

from pipeline.masking import masked_streams
from pipeline.runner.workers.messages import Event, Order, Setup, Stop
from pipeline.runner.workers.worker import LogToDriver, Worker


class _Line:
    """The connection to the driver; without it there is nothing left to do."""

    def __init__(self, connection: Connection) -> None:
        self.orders: SimpleQueue[Order] = SimpleQueue()
        self._connection = connection
        self._sending = threading.Lock()

    def tell(self, event: Event) -> None:
        with self._sending, suppress(OSError):  # the reader learns that the driver is gone
            self._connection.send(event)

    def setup(self) -> Setup:
        order: Setup = self._connection.recv()
        return order

    def read(self, worker: Worker) -> None:
        """Queue orders, until the driver says stop or is gone: then the process ends.

        What is done is stored before; a node under way is left as it is.
        """
        with suppress(EOFError, OSError):
            while not isinstance(order := self._connection.recv(), Stop):
                self.orders.put(order)
        worker.close()
        os._exit(0)


def main(descriptor: int) -> None:
    """Serve the driver at the other end of an open socket until it is done or gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to act on
    with masked_streams():
        line = _Line(Connection(descriptor))
        setup = line.setup()
        handler = LogToDriver(line.tell)
        for name in ("pipeline", "stages"):
            logging.getLogger(name).addHandler(handler)
            logging.getLogger(name).setLevel(logging.INFO)
        worker = Worker(setup, line.tell)
        threading.Thread(target=line.read, args=(worker,), name="orders", daemon=True).start()
        line.tell(worker.ready())
        while True:
            worker.carry_out(line.orders.get())


if __name__ == "__main__":
    main(int(sys.argv[1]))
