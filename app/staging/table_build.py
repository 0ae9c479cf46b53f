"""Tables that are filled without indexes: an import into empty tables fills copies of them, which then replace them.

PostgreSQL takes less than half the time if it builds indexes and checks foreign keys when all rows are there. Dropping
the indexes of the tables themselves would block all requests until the import ends. The rows are therefore inserted
into copies in a schema of their own, which no other session sees, and the copies replace the tables just before the
commit. Only this last step locks the tables, for some milliseconds. Everything is one transaction, so an import that
fails or is killed leaves the tables as they were.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Self

from sqlalchemy import Table, text
from sqlalchemy.sql.elements import TextClause

from app.db.base import non_generated_columns
from app.db.connection import Connection, Result
from app.db.database import SET_SHORT_LOCK_TIMEOUT, set_local
from app.db.errors import LockNotAvailableError, translate_errors
from app.errors import ConflictError

COPY_SCHEMA = "patients_import"
"""Name of the schema of the copies. It exists only in the transaction of an import."""
SCHEMA = "public"
"""The schema of the service's tables."""
MAX_REPLACE_ATTEMPTS = 100
"""Number of times that an import tries to replace the tables before it fails, which takes about a minute.

A transaction that uses the tables for longer, such as a backup, makes the import fail.
"""
REPLACE_RETRY_SECONDS = 0.5
"""Seconds between these attempts, so that requests that have queued behind an attempt are executed first."""
_BUILD_SETTINGS = {
    # enough to sort the index of a million rows in memory
    "maintenance_work_mem": "256MB",
    # enough for the words of a million names
    "work_mem": "64MB",
    # the vocabulary is small, but its indexes take long to compute
    "min_parallel_table_scan_size": "64kB",
}


def _catalog_query(sql: str) -> TextClause:
    """Return a query about `table_`, the tables with the names `:tables` in the schema `:schema`.

    `:copy_schema` is the schema of the copies.
    """
    tables = """
        WITH table_ AS (
            SELECT * FROM pg_class
            WHERE relnamespace = to_regnamespace(CAST(:schema AS text)) AND relname = ANY(CAST(:tables AS text[]))
        )"""
    return text(tables + sql)


_SELECT_IS_REPLACEABLE = _catalog_query(
    """
    SELECT (SELECT count(*) FROM table_ WHERE relkind = 'r' AND pg_get_userbyid(relowner) = current_user)
            = cardinality(CAST(:tables AS text[]))
        AND has_database_privilege(current_database(), 'CREATE')
        AND has_schema_privilege(CAST(:schema AS text), 'CREATE')
        AND to_regnamespace(CAST(:copy_schema AS text)) IS NULL
        AND NOT EXISTS (
            -- such as views, functions and publications, which would go on referring to the former tables
            SELECT FROM pg_depend LEFT JOIN pg_class dependent
                ON classid = CAST('pg_class' AS regclass) AND dependent.oid = objid
            WHERE refobjid IN (SELECT oid FROM table_ UNION ALL SELECT reltype FROM table_) AND NOT (
                classid IN (
                    CAST('pg_constraint' AS regclass), CAST('pg_trigger' AS regclass), CAST('pg_attrdef' AS regclass),
                    CAST('pg_type' AS regclass)
                )
                OR coalesce(dependent.relkind IN ('i', 't'), false)
            )
        )
        AND NOT EXISTS (
            -- those of all tables or of a schema do not depend on the tables, and would miss the rows of the copies
            SELECT FROM pg_publication_tables
            WHERE schemaname = CAST(:schema AS text) AND tablename = ANY(CAST(:tables AS text[]))
        )
        AND NOT EXISTS (
            SELECT FROM pg_constraint
            WHERE confrelid IN (SELECT oid FROM table_) AND conrelid NOT IN (SELECT oid FROM table_)
        )
        AND NOT EXISTS (
            SELECT FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM table_) AND NOT tgisinternal AND tgenabled <> 'O'
        )
        AND NOT EXISTS (
            SELECT FROM pg_index WHERE indrelid IN (SELECT oid FROM table_)
                AND (NOT indisvalid OR indisclustered OR indisreplident)
        )
    """
)
"""Selects whether copies that this role makes can replace the tables."""
_DESCRIBE_TABLES = _catalog_query(
    """
    SELECT CAST(ROW(
        relname, relowner, relpersistence, relam, reltablespace, relreplident, relrowsecurity, relforcerowsecurity,
        reloptions, obj_description(table_.oid, 'pg_class'),
        ARRAY(SELECT CAST(item AS text) FROM unnest(coalesce(relacl, acldefault('r', relowner))) item ORDER BY 1),
        ARRAY(
            SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint
            WHERE conrelid = table_.oid AND contype NOT IN ('f', 'p', 't') ORDER BY 1
        ),
        attname, atttypid, atttypmod, attcollation, attnotnull, attidentity, attgenerated, attstorage, attcompression,
        attstattarget, ARRAY(SELECT CAST(item AS text) FROM unnest(attacl) item ORDER BY 1), attoptions,
        pg_get_expr(adbin, adrelid), col_description(table_.oid, attnum)
    ) AS text)
    FROM table_ JOIN pg_attribute ON attrelid = table_.oid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attnum > 0 AND NOT attisdropped ORDER BY relname, attnum
    """
)
"""Selects all properties of the tables and their columns, except for indexes, keys and triggers."""
_SELECT_RIGHTS_AND_STATISTICS = _catalog_query(
    """, right_ AS (
        SELECT relname, '' AS columns, acl.* FROM table_, aclexplode(relacl) acl WHERE grantee <> relowner
        UNION ALL
        SELECT relname, format(' (%I)', attname), acl.*
        FROM table_ JOIN pg_attribute ON attrelid = table_.oid, aclexplode(attacl) acl
    )
    SELECT format(
        'GRANT %s%s ON %I.%I TO %s%s', privilege_type, columns, CAST(:copy_schema AS text), relname,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
        CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
    ) FROM right_
    UNION ALL
    SELECT format(
        'ALTER TABLE %I.%I ALTER COLUMN %I SET STATISTICS %s',
        CAST(:copy_schema AS text), relname, attname, attstattarget
    )
    FROM table_ JOIN pg_attribute ON attrelid = table_.oid WHERE attnum > 0 AND attstattarget >= 0
    """
)
_SELECT_CONSTRAINTS = _catalog_query(
    """
    SELECT CAST(contype AS text), relname, format(
        'ALTER TABLE %I.%I ADD CONSTRAINT %I %s',
        CAST(:copy_schema AS text), relname, conname, pg_get_constraintdef(pg_constraint.oid)
    )
    FROM table_ JOIN pg_constraint ON conrelid = table_.oid WHERE contype IN ('p', 'f') ORDER BY relname, conname
    """
)
"""Selects the statements that add primary keys (`p`) and foreign keys (`f`) to the copies."""
_SELECT_INDEXES = _catalog_query(
    """
    SELECT relname, replace(
        pg_get_indexdef(indexrelid),
        format(' ON %I.%I ', CAST(:schema AS text), relname),
        format(' ON %I.%I ', CAST(:copy_schema AS text), relname)
    )
    FROM table_ JOIN pg_index ON indrelid = table_.oid WHERE NOT indisprimary ORDER BY relname, 1
    """
)
_SELECT_TRIGGERS = _catalog_query(
    """
    SELECT pg_get_triggerdef(pg_trigger.oid)
    FROM table_ JOIN pg_trigger ON tgrelid = table_.oid WHERE NOT tgisinternal ORDER BY relname, tgname
    """
)


@cache  # so that it is compiled once
def _select_staged_records(table: str, staging_table: str) -> TextClause:
    """Return a statement that selects whether a table has records that are staged."""
    return text(f"SELECT EXISTS (SELECT FROM {table} JOIN {staging_table} USING (unique_id))")  # noqa: S608


class NotReplaceableError(Exception):
    """Copies cannot replace the tables exactly: the role does not own them, or they have been altered."""


class TablesInUseError(ConflictError):
    """Another transaction has used the tables for too long, so that copies could not replace them."""


class TableBuild:
    """The copies of some tables, from `create` until `replace_tables` or `discard`.

    Statements use the copies instead of the tables. The copies have the same names, but their schema comes first in the
    search path. Those of records have primary keys from the beginning, by which an import finds the records that it has
    already created.
    """

    def __init__(self, connection: Connection, tables: Sequence[Table], search_path: str) -> None:
        self._connection = connection
        self._tables = tables
        self._search_path = search_path
        self._keys: Sequence[tuple[str, str]] = []
        """The name of the table, and the statement that builds the primary key."""
        self._indexes: Sequence[tuple[str, str]] = []
        """The name of the table, and the statement that builds the index."""
        self._foreign_keys: Sequence[str] = []
        self._triggers: Sequence[str] = []

    @classmethod
    async def create(
        cls,
        connection: Connection,
        tables: Sequence[Table],
        optional: Collection[Table] = (),
        keyed: Collection[Table] = (),
    ) -> Self | None:
        """Create copies of the tables that are empty, or return None if a table has rows that must not have any.

        The tables in `optional` may have rows. The copies of the tables in `keyed` get their primary keys now, and the
        others when `build_keys` or `build_indexes` is called. A table comes after the tables that its foreign keys
        refer to.

        Raises:
            NotReplaceableError: the tables are empty, but copies cannot replace them.
        """
        are_filled = ", ".join(f"EXISTS (SELECT FROM {table.name})" for table in tables)
        state = text(f"SELECT current_setting('search_path'), {are_filled}")
        search_path, *are_filled_flags = (await connection.execute(state)).one()
        filled = {table for table, is_filled in zip(tables, are_filled_flags, strict=True) if is_filled}
        if not filled <= {*optional}:
            return None
        build = cls(connection, [table for table in tables if table not in filled], search_path)
        async with connection.savepoint():
            await build._create_copies()
            await build.build_keys(keyed)
        return build

    async def _create_copies(self) -> None:
        if not (await self._select(_SELECT_IS_REPLACEABLE)).scalar_one():
            raise NotReplaceableError
        constraints = (await self._select(_SELECT_CONSTRAINTS)).all()
        self._keys = [(name, statement) for kind, name, statement in constraints if kind == "p"]
        self._foreign_keys = [statement for kind, _, statement in constraints if kind == "f"]
        self._indexes = [(name, statement) for name, statement in await self._select(_SELECT_INDEXES)]
        self._triggers = (await self._select(_SELECT_TRIGGERS)).scalars().all()
        like = "INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS"
        await self._execute(
            [
                f"CREATE SCHEMA {COPY_SCHEMA}",
                *(f"CREATE TABLE {COPY_SCHEMA}.{name} (LIKE {SCHEMA}.{name} {like})" for name in self._names),
                *(await self._select(_SELECT_RIGHTS_AND_STATISTICS)).scalars(),
            ]
        )
        if await self._describe(COPY_SCHEMA) != await self._describe(SCHEMA):
            raise NotReplaceableError
        await self._connection.execute(
            set_local({**_BUILD_SETTINGS, "search_path": f"{COPY_SCHEMA}, {self._search_path}"})
        )

    @property
    def _names(self) -> list[str]:
        return [table.name for table in self._tables]

    def __contains__(self, table: Table) -> bool:
        """Return whether a table has a copy."""
        return table in self._tables

    async def refuse_concurrent_records(self, name: str, staging_table: str) -> None:
        """Refuse staged records that requests have created in the table with this name since `create`.

        Raises:
            ConflictError: there are such records.
        """
        if (await self._connection.execute(_select_staged_records(f"{SCHEMA}.{name}", staging_table))).scalar_one():
            raise ConflictError("Another transaction has created the same record.")

    async def build_keys(self, tables: Collection[Table]) -> None:
        """Build the primary keys of those tables that have copies, unless these have them already."""
        # the catalog knows which are there, also after a rollback to a savepoint
        built = {statement for _, _, statement in await self._select(_SELECT_CONSTRAINTS, COPY_SCHEMA)}
        names = {table.name for table in tables}
        await self._execute(statement for name, statement in self._keys if name in names and statement not in built)

    async def build_indexes(self, tables: Collection[Table]) -> None:
        """Build the keys and indexes of those tables that have copies. Statements that follow may scan whole tables."""
        await self.build_keys(tables)
        names = {table.name for table in tables}
        await self._execute(statement for name, statement in self._indexes if name in names)

    async def discard(self) -> None:
        """Drop the copies, so that statements use the tables again."""
        await self._execute([f"DROP SCHEMA {COPY_SCHEMA} CASCADE", f"SET LOCAL search_path TO {self._search_path}"])

    async def replace_tables(self) -> None:
        """Check the foreign keys, and replace the tables with the copies. This must be the last step of an import.

        Rows that requests have inserted into the tables meanwhile are kept.

        Raises:
            TablesInUseError: another transaction has used the tables during all `MAX_REPLACE_ATTEMPTS`.
            ConflictError: a foreign key is violated, because a request has deleted a linked record.
        """
        for _ in range(MAX_REPLACE_ATTEMPTS):
            with suppress(LockNotAvailableError):
                async with translate_errors(), self._connection.savepoint():
                    await self._connection.execute(SET_SHORT_LOCK_TIMEOUT)
                    await self._execute(self._replace_statements())
                    return
            await asyncio.sleep(REPLACE_RETRY_SECONDS)
        raise TablesInUseError(
            "Another transaction, such as a backup, has used the tables for a minute. Nothing was stored: run the "
            "import again when it has ended."
        )

    def _replace_statements(self) -> Iterator[str]:
        names = ", ".join(f"{SCHEMA}.{name}" for name in self._names)
        targets = {key.column.table.name for table in self._tables for key in table.foreign_keys} - {*self._names}
        target_names = ", ".join(f"{SCHEMA}.{name}" for name in sorted(targets))
        yield f"LOCK TABLE {target_names} IN SHARE ROW EXCLUSIVE MODE"
        yield from self._foreign_keys
        # all at once, because dropping a foreign key locks both tables, and requests lock them in another order
        yield f"LOCK TABLE {names}, {target_names} IN ACCESS EXCLUSIVE MODE"
        yield from map(self._copy_rows_statement, self._tables)
        yield f"DROP TABLE {names}"
        yield from (f"ALTER TABLE {COPY_SCHEMA}.{name} SET SCHEMA {SCHEMA}" for name in self._names)
        yield from self._triggers
        yield f"DROP SCHEMA {COPY_SCHEMA}"
        yield f"SET LOCAL search_path TO {self._search_path}"
        yield "SET LOCAL lock_timeout TO DEFAULT"

    def _copy_rows_statement(self, table: Table) -> str:
        columns = ", ".join(column.name for column in non_generated_columns(table))
        copy = f"{COPY_SCHEMA}.{table.name}"
        statement = f"INSERT INTO {copy} ({columns}) SELECT {columns} FROM {SCHEMA}.{table.name}"  # noqa: S608
        # rows of tables with nothing else than a key, such as words, are the same if their keys are
        is_key_only = all(column.primary_key or column.server_default is not None for column in table.columns)
        return f"{statement} ON CONFLICT DO NOTHING" if is_key_only else statement

    async def _select(self, statement: TextClause, schema: str = SCHEMA) -> Result:
        parameters = {"schema": schema, "tables": self._names, "copy_schema": COPY_SCHEMA}
        return await self._connection.execute(statement, parameters)

    async def _describe(self, schema: str) -> Sequence[str]:
        description: Sequence[str] = (await self._select(_DESCRIBE_TABLES, schema)).scalars().all()
        return description

    async def _execute(self, statements: Iterable[str]) -> None:
        for statement in statements:
            await self._connection.execute_sql(statement)  # a definition may contain a colon
