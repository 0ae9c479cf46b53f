"""Connections that execute SQLAlchemy's statements with the driver directly.

SQLAlchemy builds the statements and compiles each of them once; asyncpg executes them. SQLAlchemy's `AsyncConnection`
would derive a cache key from the statement and switch between greenlets for each execution, which takes twice as long
as PostgreSQL takes to read a record. This module can be removed when SQLAlchemy executes compiled statements as fast.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast
from weakref import WeakKeyDictionary

import asyncpg
from pydantic_core import to_json
from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.sql.compiler import SQLCompiler

if TYPE_CHECKING:  # importing it creates metrics, which `serve` must do only after it has chosen their directory
    from app.observability.statements import StatementInstrumentation


def _serialize_json(value: Any) -> str:
    """Return a value as JSON text. Pydantic's serializer is fast and supports dates and decimals."""
    return to_json(value).decode()


P = ParamSpec("P")
T = TypeVar("T")
MAX_LITERAL_TEXTS = 100
"""Maximum number of texts with literals that are kept. A connection keeps no more prepared statements either."""
MAX_COMPILED_SHAPES = 128
"""Maximum number of compiled statements that are kept for each function that builds statements.

A maximum is necessary because each combination of query parameters has a statement of its own.
"""
DIALECT = asyncpg_dialect.dialect(json_serializer=_serialize_json)  # type: ignore[no-untyped-call]
"""SQLAlchemy's dialect for asyncpg, by which statements are compiled."""


class Result(IteratorResult[*tuple[Any, ...]]):
    """The rows that a statement returned."""

    records: Sequence[asyncpg.Record] = ()
    """The same rows as the driver returned them, which saves five microseconds per row. They are read by position."""
    rowcount: int = 0
    """Number of rows that a statement wrote that returns no rows."""


class CompiledStatement:
    """The SQL text of a statement, and how the values of its parameters are passed to the driver.

    This must not refer to the statement, because `compile_statement` keeps it for as long as the statement exists.
    """

    def __init__(self, statement: Executable) -> None:
        compiled: Any = statement.compile(dialect=DIALECT)  # type: ignore[attr-defined]  # every statement has it
        self.text = str(compiled)
        self.returns_rows = True
        self._names: list[str] = []
        self._literal_names: list[str] = []
        """Names of the parameters that the planner has to know. Their values, integers, become part of the text."""
        self._defaults: dict[str, Any] = {}
        self._processors: dict[str, Callable[[Any], Any]] = {}
        self._metadata: SimpleResultMetaData | None = None
        if isinstance(compiled, SQLCompiler):  # otherwise it changes the schema and has no parameters
            self._add_parameters(compiled)
            writes = compiled.isinsert or compiled.isupdate or compiled.isdelete
            self.returns_rows = not writes or bool(compiled.effective_returning)

    def _add_parameters(self, compiled: SQLCompiler) -> None:
        if compiled.post_compile_params - compiled.literal_execute_params:
            raise ValueError("The text depends on the length of a list. Use `any_` with an array instead of `in_`.")
        self._literal_names = [parameter.key for parameter in compiled.literal_execute_params]
        self._names = [name for name in compiled.positiontup or () if name not in self._literal_names]
        self._defaults = {name: compiled.params[name] for name in self._names if not compiled.binds[name].required}
        processors: Any = compiled._bind_processors  # noqa: SLF001  # SQLAlchemy itself uses it for each execution
        self._processors = {name: processors[name] for name in self._names if name in processors}

    def bind(self, parameters: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """Return the text and the values of `$1`, `$2` and so on.

        Raises:
            KeyError: a parameter has no value.
        """
        if self._defaults:
            parameters = {**self._defaults, **parameters}
        text = self.text
        if self._literal_names:
            text = _with_literals(text, tuple((name, int(parameters[name])) for name in self._literal_names))
        processors = self._processors
        values = [
            processors[name](parameters[name]) if name in processors else parameters[name] for name in self._names
        ]
        return text, values

    def result(self, records: list[asyncpg.Record]) -> Result:
        """Return the result with these rows."""
        metadata = self._metadata
        if metadata is None:
            if not records:
                return Result(_NO_ROWS_COLUMNS, iter(()))
            metadata = self._metadata = SimpleResultMetaData(tuple(records[0].keys()))
        result = Result(metadata, iter(records))
        result.records = records
        return result


@lru_cache(MAX_LITERAL_TEXTS)
def _with_literals(text: str, literals: tuple[tuple[str, int], ...]) -> str:
    """Return the text of a statement with the values of its literals.

    The same object is returned each time, so that the driver, which finds its prepared statement by the text, need not
    hash thousands of characters for each execution.
    """
    for name, value in literals:
        text = text.replace(f"__[POSTCOMPILE_{name}]", str(value))
    return text


Statement = Executable | CompiledStatement
"""What a connection executes."""
_NO_ROWS_COLUMNS = SimpleResultMetaData(("",))
"""The columns of a result without rows, of which `Result.scalars` needs one."""
_compiled_statements: WeakKeyDictionary[Executable, CompiledStatement] = WeakKeyDictionary()


def compile_statement(statement: Executable) -> CompiledStatement:
    """Return the compiled form of a statement, which is compiled once and kept for as long as the statement exists.

    Compiling takes milliseconds, so a statement that requests execute must be built once and have bind parameters, or
    be built by a function that `compiled_by_shape` decorates.
    """
    compiled = _compiled_statements.get(statement)
    if compiled is None:
        compiled = _compiled_statements[statement] = CompiledStatement(statement)
    return compiled


def compiled_by_shape(build: Callable[P, Executable]) -> Callable[P, CompiledStatement]:
    """Decorate a function that builds the statement for requests of a shape, its hashable arguments.

    It then returns the compiled form, which it keeps for the `MAX_COMPILED_SHAPES` shapes that were used last. Nothing
    keeps the statement itself: that of a search takes half a megabyte, which each garbage collection would visit.
    """

    @lru_cache(MAX_COMPILED_SHAPES)
    @wraps(build)
    def build_compiled(*shape: P.args, **named: P.kwargs) -> CompiledStatement:
        return compile_statement(build(*shape, **named))

    return cast("Callable[P, CompiledStatement]", build_compiled)


async def _reporting_loss(call: Awaitable[T]) -> T:
    """Return the result of a call of the driver, and report a lost connection by the same error, however it shows.

    If PostgreSQL is killed, the driver may also raise an error of the operating system or an internal error of its own.

    Raises:
        asyncpg.ConnectionDoesNotExistError: the connection is lost.
    """
    try:
        return await call
    except (OSError, asyncpg.InternalClientError) as error:
        raise asyncpg.ConnectionDoesNotExistError("the connection is lost") from error


class Connection:
    """A connection to PostgreSQL, held by one request or command at a time."""

    def __init__(
        self,
        driver: asyncpg.Connection,
        instrumentation: "StatementInstrumentation | None" = None,
        statements_timeout_seconds: float | None = None,
    ) -> None:
        """Execute statements with `driver` and measure them with `instrumentation`, if it is given.

        `statements_timeout_seconds`, if given, is the maximum total duration of all statements that return rows. The
        time between them does not count: in a new process on a busy machine, compiling them may take longer.
        """
        self.driver = driver
        self._instrumentation = instrumentation
        self._remaining_seconds = statements_timeout_seconds
        self._began_at: float | None = None
        """When the transaction began, until its first statement is executed."""
        self._savepoint_count = 0

    async def execute(self, statement: Statement, parameters: Mapping[str, Any] | None = None) -> Result:
        """Execute a statement with the values of its bind parameters, and return all its rows.

        Raises:
            asyncpg.PostgresError: PostgreSQL rejects the statement, or the connection is lost.
            asyncpg.InterfaceError: the connection is closed.
            TimeoutError: the statements together took too long.
        """
        compiled = compile_statement(statement) if isinstance(statement, Executable) else statement
        text, values = compiled.bind(parameters or {})
        began, self._began_at = self._began_at or time.perf_counter(), None
        try:
            if compiled.returns_rows:
                call = _reporting_loss(self.driver.fetch(text, *values))
                result = compiled.result(await (call if self._remaining_seconds is None else self._in_time(call)))
            else:
                result = Result(_NO_ROWS_COLUMNS, iter(()))
                status = await _reporting_loss(self.driver.execute(text, *values))  # such as "UPDATE 3"
                result.rowcount = int(status.rpartition(" ")[2])
        except Exception as error:
            self._measure(compiled.text, began, error)
            raise
        self._measure(compiled.text, began, None)
        return result

    async def _in_time(self, call: Awaitable[T]) -> T:
        """Return the result of a call of the driver, whose duration counts towards that of all statements."""
        began = time.perf_counter()
        async with asyncio.timeout(self._remaining_seconds):
            result = await call
        assert self._remaining_seconds is not None  # noqa: S101  # otherwise the caller need not count
        self._remaining_seconds -= time.perf_counter() - began
        return result

    async def execute_sql(self, text: str) -> None:
        """Execute SQL as it is, in which a colon does not begin a parameter. It is not measured.

        Raises:
            asyncpg.PostgresError, asyncpg.InterfaceError: see `execute`.
        """
        await _reporting_loss(self.driver.execute(text))

    async def copy(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        """Insert rows in the text format of COPY into a table. SQLAlchemy has no API for COPY.

        Raises:
            asyncpg.PostgresError, asyncpg.InterfaceError: see `execute`.
        """
        # the driver would take bytes for the name of a file
        await _reporting_loss(self.driver.copy_to_table(table, source=memoryview(rows), columns=columns))

    def _measure(self, text: str, began: float, error: Exception | None) -> None:
        if self._instrumentation is not None:
            self._instrumentation.record(text, began, error)

    async def begin(self, options: str = "") -> None:
        """Begin a transaction with `options`, such as `READ ONLY`, which more statements may follow after a semicolon.

        The time that this takes is measured as part of the first statement of the transaction.
        """
        self._began_at = time.perf_counter()
        await self.execute_sql(f"BEGIN {options}")

    async def commit(self) -> None:
        """Commit the transaction."""
        began = time.perf_counter()
        try:
            await self.execute_sql("COMMIT")
        except Exception as error:
            self._measure("COMMIT", began, error)
            raise
        self._measure("COMMIT", began, None)

    async def rollback(self) -> None:
        """Roll back the transaction, if one is open."""
        if not self.driver.is_closed() and self.driver.is_in_transaction():
            await self.execute_sql("ROLLBACK")

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Undo the changes made in the context, and only these, if an error leaves it."""
        self._savepoint_count += 1
        name = f"savepoint_{self._savepoint_count}"
        await self.execute_sql(f"SAVEPOINT {name}")
        try:
            yield
        except Exception:
            if not self.driver.is_closed():
                await self.execute_sql(f"ROLLBACK TO {name}")
            raise
        await self.execute_sql(f"RELEASE {name}")
