"""${message}

Deployments run this while the version before serves: expand (add tables, nullable columns, indexes CONCURRENTLY) now,
contract (drop, rename, NOT NULL) only when no running version needs what goes.
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
