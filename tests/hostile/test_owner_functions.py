"""Functions that run with the rights of the tables' owner: no role can gain these rights through them."""

import asyncpg
import pytest

from tests.journal import conftest as fixtures

command, serving_url = fixtures.command, fixtures.serving_url

SERVING_ROLE_FUNCTIONS = {"add_audit_months", "forget_stale_words"}
"""The functions that the serving role may call."""
CREATE_SHADOWING_TYPE = """
    CREATE FUNCTION pg_temp.evil(v pg_catalog.tsquery) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        CREATE TABLE public.stolen AS SELECT current_user;
        RETURN true;
    END $$;
    CREATE DOMAIN pg_temp.tsquery AS pg_catalog.tsquery CHECK (pg_temp.evil(VALUE));
"""
CREATE_FOREIGN_TRIGGER = """
    CREATE TYPE pg_temp.bait AS (x text);
    CREATE FUNCTION pg_temp.evil(v pg_temp.bait) RETURNS tsvector LANGUAGE plpgsql AS $$
    BEGIN
        CREATE TABLE public.stolen AS SELECT current_user;
        RETURN ''::tsvector;
    END $$;
    CREATE CAST (pg_temp.bait AS tsvector) WITH FUNCTION pg_temp.evil(pg_temp.bait) AS IMPLICIT;
    CREATE TEMP TABLE written_to (unique_id text, patient_search pg_temp.bait);
    CREATE TRIGGER t AFTER INSERT ON written_to REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION public.learn_name_words();
    INSERT INTO written_to VALUES ('a', ROW('x'))
"""


async def test_owner_functions_fix_search_path_and_are_not_public(connection: asyncpg.Connection) -> None:
    """Every such function searches `pg_catalog` before `pg_temp`, and PUBLIC may not call it."""
    functions = await connection.fetch(
        "SELECT proname, proconfig, has_function_privilege('public', oid, 'EXECUTE') AS anybody"
        " FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace"
    )
    assert len(functions) > len(SERVING_ROLE_FUNCTIONS)
    for function in functions:
        assert "search_path=pg_catalog, pg_temp" in function["proconfig"], function["proname"]
        assert not function["anybody"], function["proname"]


@pytest.mark.parametrize(
    "call", ["SELECT * FROM unused_words('{x}')", "SELECT forget_stale_words('{x}')", CREATE_FOREIGN_TRIGGER]
)
async def test_the_serving_role_does_not_become_the_owner(
    serving_url: str, connection: asyncpg.Connection, call: str
) -> None:
    """The serving role gains no rights of the owner through its own types or triggers."""
    serving = await asyncpg.connect(serving_url)
    try:
        if call is not CREATE_FOREIGN_TRIGGER:
            await serving.execute(CREATE_SHADOWING_TYPE)
        if "forget_stale_words" in call:
            await serving.execute(call)
        else:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await serving.execute(call)
    finally:
        await serving.close()
    assert await connection.fetchval("SELECT to_regclass('public.stolen')") is None


async def test_the_serving_role_can_call_only_the_functions_it_needs(serving_url: str) -> None:
    """The serving role may call the functions it needs and no others."""
    serving = await asyncpg.connect(serving_url)
    try:
        callable_ = await serving.fetch(
            "SELECT proname FROM pg_proc WHERE prosecdef AND has_function_privilege(oid, 'EXECUTE')"
        )
    finally:
        await serving.close()
    assert {name for (name,) in callable_} == SERVING_ROLE_FUNCTIONS
