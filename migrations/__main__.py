"""`make migration m="…"`: write a migration for the changes of the models; needs no database."""

import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config

from app.embedded.server import EmbeddedPostgres

MIGRATIONS_DIRECTORY = Path(__file__).parent


def main(message: str) -> None:
    today = f"{datetime.now(UTC):%Y%m%d}"
    numbers = [int(path.name.split("_")[1]) for path in (MIGRATIONS_DIRECTORY / "versions").glob(f"{today}_*")]
    number = max(numbers, default=0) + 1
    config = Config(MIGRATIONS_DIRECTORY.parent / "alembic.ini")
    with tempfile.TemporaryDirectory() as directory, EmbeddedPostgres(Path(directory)) as server:
        os.environ["DATABASE_URL"] = server.url
        command.upgrade(config, "head")
        command.revision(config, message, autogenerate=True, rev_id=f"{today}_{number:02}")


if __name__ == "__main__":
    if not sys.argv[1:] or not sys.argv[1]:
        sys.exit('Describe the change: make migration m="patient nickname"')
    main(sys.argv[1])
