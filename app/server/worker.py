"""The application as it runs in a server process. One such process serves alone, or several serve side by side."""

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
    """Return the application for one server process. It is configured by environment variables."""
    configure_logging()
    settings = Settings.load()
    app = create_app(settings)
    _stop_on_signals(app, settings.drain_seconds)
    _tune_gc()
    return app


def _tune_gc() -> None:
    """Exclude objects that exist at startup from garbage collection, and make collections rare.

    A full collection stops all requests while it runs.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 50)


def _stop_on_signals(app: FastAPI, drain_seconds: float) -> None:
    """Make SIGTERM drain this process: the process keeps serving for `drain_seconds` but reports that it is not ready.

    Clients can thus turn to other instances before the server stops. A second SIGTERM, or a SIGINT, stops it at once.
    From the first signal on, no client waits for changes any more, so that none holds up the end.
    """
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def stoppable_lifespan(app: FastAPI) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()

        def handle(number: signal.Signals, delay_seconds: float) -> None:
            server_handler = signal.getsignal(number)  # the server's own handler, which is installed by now
            assert callable(server_handler), "the server handles the signal"  # noqa: S101

            def start_stopping(signal_number: int, frame: FrameType | None) -> None:
                services: AppServices = app.state.services
                delay = 0 if services.is_stopping else delay_seconds
                services.is_stopping = True
                loop.call_soon_threadsafe(loop.call_later, delay, server_handler, signal_number, frame)

            signal.signal(number, start_stopping)

        handle(signal.SIGTERM, drain_seconds)
        handle(signal.SIGINT, 0)
        async with lifespan(app) as state:
            yield state

    app.router.lifespan_context = stoppable_lifespan
