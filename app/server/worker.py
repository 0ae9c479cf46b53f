"""A process that serves: the application as the server runs it, one or several beside each other."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

from fastapi import FastAPI

from app.main import create_app
from app.observability.logging import configure_logging
from app.settings import Settings


def create_worker_app() -> FastAPI:
    """The application of one server process, on the environment's settings."""
    configure_logging()
    settings = Settings.load()
    app = create_app(settings)
    _drain_on_sigterm(app, settings.drain_seconds)
    _tune_gc()
    return app


def _tune_gc() -> None:
    """Leave what is there at the start out of garbage collections, and have few: each full one stops all requests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 50)


def _drain_on_sigterm(app: FastAPI, drain_seconds: float) -> None:
    """On SIGTERM, serve on for some `seconds` and say that the service is not ready: who sends requests can turn away.

    A second SIGTERM, and SIGINT, end it at once.
    """
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def draining_lifespan(app: FastAPI) -> AsyncIterator[Any]:
        server_handler = signal.getsignal(signal.SIGTERM)  # the server's own handler, which is there by now
        assert callable(server_handler), "the server handles SIGTERM"  # noqa: S101
        loop = asyncio.get_running_loop()

        def start_draining(signal_number: int, frame: FrameType | None) -> None:
            delay = 0 if app.state.stopping else drain_seconds
            app.state.stopping = True
            loop.call_soon_threadsafe(loop.call_later, delay, server_handler, signal_number, frame)

        signal.signal(signal.SIGTERM, start_draining)
        async with lifespan(app) as state:
            yield state

    app.router.lifespan_context = draining_lifespan
