"""Writes that are one statement: a function by which a statement ends with an error unless a condition holds."""

from alembic import op

revision = "20261130_04"
down_revision = "20261130_03"

REQUIRE = """
CREATE FUNCTION require(condition boolean) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF condition IS NOT TRUE THEN
        RAISE EXCEPTION 'this change has to be made in a transaction' USING ERRCODE = 'PA001';
    END IF;
    RETURN true;
END $$
"""


def upgrade() -> None:
    op.execute(REQUIRE)


def downgrade() -> None:
    op.execute("DROP FUNCTION require(boolean)")
