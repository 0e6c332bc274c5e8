"""A worker that is a process of this machine, at the other end of a pair of sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection

from pipeline.machine.variables import handed_on
from pipeline.runner.held import in_files
from pipeline.runner.workers.messages import Build, Ended, Order, Setup, Stop
from pipeline.runner.workers.pool import Handle, Hear

PATIENCE = 60.0
"""Seconds that a worker may take to store what is done, when a run ends."""


class ProcessWorker:
    """Starts a worker's process; what it tells goes to `hear`, from a thread of its own."""

    def __init__(self, setup: Setup, environment: Mapping[str, str], hear: Hear) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "pipeline.runner.workers.main", str(theirs.fileno())],
                env=dict(environment),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
            )
        self._connection = Connection(ours.detach())
        self._hear = hear
        self._sending = threading.Lock()
        self.send(setup)
        self._reader = threading.Thread(target=self._read, name="worker's events", daemon=True)
        self._reader.start()

    def send(self, order: Order) -> None:
        if isinstance(order, Build):
            inputs = {key: in_files(held) for key, held in order.inputs.items()}
            order = replace(order, inputs=inputs)
        try:
            with self._sending:
                self._connection.send(order)
        except OSError:  # it has ended, which the reader says
            return

    def close(self) -> None:
        self.send(Stop())
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._connection.close()

    def _read(self) -> None:
        while True:
            try:
                event = self._connection.recv()
            except (EOFError, OSError):
                break
            self._hear(event)
        self._hear(Ended(reason=_reason(self._process.wait())))


def hire_process(setup: Setup, device: str, hear: Hear) -> Handle:
    """Start a worker for a device: `cpu`, `cuda:1`. It sees no other GPU than that."""
    return ProcessWorker(setup, {**handed_on(os.environ), **only_gpu(device, os.environ)}, hear)


def only_gpu(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables with which a process sees the GPU of `device` alone, as its first one."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return {}
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    number = int(index or 0)
    return {"CUDA_VISIBLE_DEVICES": visible[number] if number < len(visible) else str(number)}


def _reason(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
