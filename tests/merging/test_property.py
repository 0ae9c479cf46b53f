"""Random creates, edits, merges, unmerges, deletes and restores by several principals agree with a plain model."""

from contextlib import AsyncExitStack

from app.auth.scopes import Scope
from tests.auth.support import client_for, make_key, secured_app
from tests.merging.random_run import SCOPES, RandomRun
from tests.processes import run_cli

REGULAR_SCOPES = tuple(scope for scope in Scope if scope not in {Scope.ADMIN, Scope.BREAK_GLASS})
STEPS_BETWEEN_COMPARISONS = 60


async def run_randomly(database_url: str, seed: int, rounds: int) -> RandomRun:
    """Make random steps in several rounds, and compare everything after each."""
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(secured_app(database_url, rate_limit="off"))
        clients = {}
        for name, hospitals in SCOPES.items():
            limits = None if hospitals is None else sorted(hospitals)
            key = await make_key(database_url, *REGULAR_SCOPES, name=name, hospitals=limits)
            clients[name] = await stack.enter_async_context(client_for(app, key))
        run = RandomRun(seed, clients)
        await run.prepare()
        for _ in range(rounds):
            await run.steps(STEPS_BETWEEN_COMPARISONS)
            await run.compare()
        return run


async def check_random_merges(database_url: str, seed: int, rounds: int) -> RandomRun:
    """Make random steps that agree with the model, and verify the journal."""
    run = await run_randomly(database_url, seed, rounds)
    verified = run_cli("journal", "verify", DATABASE_URL=database_url)
    assert verified.returncode == 0, verified.stdout
    return run


async def test_random_merges_agree_with_a_plain_model(database_url: str) -> None:
    """Records, links, histories, queue, feed and disclosures are those of the model, for each principal."""
    run = await check_random_merges(database_url, 1, rounds=4)
    assert run.statuses >= {("POST merge/", status) for status in (200, 404, 409, 410, 422)}
    assert run.statuses >= {("POST unmerge/", status) for status in (200, 404, 409)}
