"""A serving process: the application as the server runs it, in one process or several side by side."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

from fastapi import FastAPI

from app.api.services import AppServices
from app.main import create_app
from app.observability.logging import configure_logging
from app.settings import Settings


def create_worker_app() -> FastAPI:
    """Return the application of one server process, with the settings of the environment."""
    configure_logging()
    settings = Settings.load()
    app = create_app(settings)
    _drain_on_sigterm(app, settings.drain_seconds)
    _tune_gc()
    return app


def _tune_gc() -> None:
    """Exclude objects created at startup from garbage collection, and collect rarely: a full one stops all requests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 50)


def _drain_on_sigterm(app: FastAPI, drain_seconds: float) -> None:
    """On SIGTERM, keep serving for `drain_seconds` and report not ready, so that clients can turn to other instances.

    A second SIGTERM, or SIGINT, ends this at once.
    """
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def draining_lifespan(app: FastAPI) -> AsyncIterator[Any]:
        server_handler = signal.getsignal(signal.SIGTERM)  # the server's own handler, which is installed by now
        assert callable(server_handler), "the server handles SIGTERM"  # noqa: S101
        loop = asyncio.get_running_loop()

        def start_draining(signal_number: int, frame: FrameType | None) -> None:
            services: AppServices = app.state.services
            delay = 0 if services.is_stopping else drain_seconds
            services.is_stopping = True
            loop.call_soon_threadsafe(loop.call_later, delay, server_handler, signal_number, frame)

        signal.signal(signal.SIGTERM, start_draining)
        async with lifespan(app) as state:
            yield state

    app.router.lifespan_context = draining_lifespan
