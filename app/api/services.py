"""The objects that all requests of an application share, such as the database and the authenticator."""

from dataclasses import dataclass

from fastapi import Request

from app.admission.bulkhead import Bulkhead
from app.audit.recorder import AuditRecorder
from app.auth.authentication import Authenticator
from app.changes.reading import ChangeFeed
from app.changes.waiting import ChangeWatcher
from app.db.database import Database
from app.db.transaction_batching import TransactionBatcher
from app.listing.batched_reads import BatchedReads
from app.listing.cursors import Cursors
from app.matching.pending import BackgroundComparison
from app.settings import Settings


@dataclass(slots=True)
class AppServices:
    """The objects that all requests of an application share.

    `app.main.create_app` creates one instance of each. Requests find them at `app.state.services`.
    """

    settings: Settings
    database: Database
    authenticator: Authenticator
    audit_recorder: AuditRecorder
    batched_reads: BatchedReads
    transaction_batcher: TransactionBatcher
    cursors: Cursors
    stream_bulkhead: Bulkhead
    upload_bulkhead: Bulkhead
    import_bulkhead: Bulkhead
    feed: ChangeFeed
    change_watcher: ChangeWatcher
    comparison: BackgroundComparison
    waiting_bulkhead: Bulkhead
    is_stopping: bool = False
    """Whether the process is shutting down. It still handles requests, but its readiness probe fails."""


def get_services(request: Request) -> AppServices:
    """Return the services of the application that handles `request`."""
    services: AppServices = request.app.state.services
    return services
