"""What `patients-api serve` reports when it starts: its version, database, authentication, audit and demo data."""

import importlib.metadata
import sys

import structlog

from app.connection_errors import describe_database
from app.settings import Settings

log = structlog.get_logger()


def report_start(
    distribution: str, url: str, settings: Settings, *, is_embedded: bool, has_loaded_demo: bool | None
) -> None:
    """Report what is served at `url`: as some lines on a terminal, otherwise as one log event.

    `distribution` is the name under which this package is installed, by which its version is found. `settings` has the
    database URL, also of an embedded database. `has_loaded_demo` is whether demo data were inserted, or None if they
    were not asked for. The first line is always printed to stderr, for the person who waits for it.
    """
    version = importlib.metadata.version(distribution)
    print(f"Patients API {version}: {url}/docs (press Ctrl-C to stop)", file=sys.stderr)
    database_url = settings.database_url.get_secret_value() if settings.database_url is not None else ""
    database = f"embedded, in {settings.data_dir.resolve()}" if is_embedded else describe_database(database_url)
    if not sys.stdout.isatty():
        log.info(
            "service starting",
            version=version,
            url=url,
            database=database,
            authentication=settings.auth_required,
            reads_audited=settings.reads_audited,
            demo_data_loaded=bool(has_loaded_demo),
        )
        return
    demo_data = {
        True: "inserted now",
        False: "nothing inserted, because the database is not new",
        None: "not asked for",
    }
    for name, value in (
        ("database", database),
        ("authentication", "required" if settings.auth_required else "off (PATIENTS_AUTH=required turns it on)"),
        ("reads", "audited" if settings.reads_audited else "not audited (PATIENTS_AUDIT_READS=true changes this)"),
        ("demo data", demo_data[has_loaded_demo]),
    ):
        print(f"  {name:<16}{value}", file=sys.stderr)
