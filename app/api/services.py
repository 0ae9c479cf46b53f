"""What the application shares among its requests."""

from dataclasses import dataclass

from fastapi import Request

from app.audit.recorder import AuditRecorder
from app.auth.authentication import Authenticator
from app.db.bulkhead import Bulkhead
from app.db.database import Database
from app.db.transaction_batching import TransactionBatcher
from app.listing.batched_reads import BatchedReads
from app.listing.cursors import Cursors
from app.settings import Settings


@dataclass(slots=True)
class AppServices:
    """The services of one application, `app.state.services`: one instance each, made by `app.main.create_app`."""

    settings: Settings
    database: Database
    authenticator: Authenticator
    audit_recorder: AuditRecorder
    batched_reads: BatchedReads
    transaction_batcher: TransactionBatcher
    cursors: Cursors
    stream_bulkhead: Bulkhead
    is_stopping: bool = False
    """Whether the process drains: it still serves, but reports that it is not ready."""


def get_services(request: Request) -> AppServices:
    """Return the services of the application that serves `request`."""
    services: AppServices = request.app.state.services
    return services
