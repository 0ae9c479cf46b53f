"""${message}

Deployments run this while the version before serves, so it expands (tables, nullable columns, indexes CONCURRENTLY); what
contracts (drop, NOT NULL) comes when no running version needs what goes: docs/writing-migrations.md.
"""

% if imports:
${imports}
% endif
import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
