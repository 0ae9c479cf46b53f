"""Serve the limit: `python -m benchmarks.peers.limit --port 8001 --workers 2`, on the database of DATABASE_URL."""

import argparse
import contextlib
import multiprocessing
import signal
import socket

import uvicorn

from benchmarks.peers.limit.application import application


def _run_worker(port: int) -> None:
    """Run a worker with its own socket, so that the kernel spreads the connections evenly."""
    worker_socket = socket.socket()
    worker_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    worker_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    worker_socket.bind(("127.0.0.1", port))
    config = uvicorn.Config(application, log_level="error", access_log=False, server_header=False, lifespan="on")
    uvicorn.Server(config).run(sockets=[worker_socket])


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.limit", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    arguments = parser.parse_args()
    workers = [multiprocessing.Process(target=_run_worker, args=(arguments.port,)) for _ in range(arguments.workers)]
    for worker in workers:
        worker.start()

    def terminate_workers(*_: object) -> None:
        for worker in workers:
            worker.terminate()

    signal.signal(signal.SIGTERM, terminate_workers)
    with contextlib.suppress(KeyboardInterrupt):
        for worker in workers:
            worker.join()


if __name__ == "__main__":
    main()
