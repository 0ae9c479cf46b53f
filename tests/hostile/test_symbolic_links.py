"""Files that a command writes to a place where others may write too."""

import asyncio
import os
from pathlib import Path

from tests.transfer.support import run_cli_on

INVALID_LINE = '{"patient_title": "Dr"}\n'
SYMBOLIC_LINK_ERROR = "cannot be written: It is a symbolic link. Specify the file that it points to"


async def test_symbolic_links_to_files_are_not_followed(database_url: str, tmp_path: Path) -> None:
    """A link to a file is refused and its target neither changed nor created; a regular file is overwritten."""
    theirs, link, nowhere = tmp_path / "theirs.csv", tmp_path / "link.csv", tmp_path / "nowhere.csv"
    theirs.write_text("precious")
    link.symlink_to(theirs)
    nowhere.symlink_to(tmp_path / "missing.csv")
    exported = tmp_path / "directory"
    exported.mkdir()
    (exported / "patients.ndjson").symlink_to(theirs)
    for options in (("--output", link), ("--output", nowhere), ("--directory", exported)):
        run = await run_cli_on(database_url, "export", *options)
        assert (run.returncode, SYMBOLIC_LINK_ERROR in run.stderr) == (1, True), run.stderr
    run = await run_cli_on(database_url, "import", "-", "--errors", link, stdin=INVALID_LINE)
    assert (run.returncode, f"{link} {SYMBOLIC_LINK_ERROR}. Nothing was stored." in run.stderr) == (1, True), run.stderr
    run = await run_cli_on(database_url, "import", "-", "--errors", nowhere, stdin=INVALID_LINE)
    assert (run.returncode, "No such file" in run.stderr) == (1, True), run.stderr
    assert theirs.read_text() == "precious"
    assert not (tmp_path / "missing.csv").exists()
    assert link.is_symlink()
    own = tmp_path / "own.csv"
    own.write_text("x" * 10_000)
    assert (await run_cli_on(database_url, "import", "-", "--errors", own, stdin=INVALID_LINE)).returncode == 1
    assert own.read_text().startswith("file,line,field")
    assert "x" * 100 not in own.read_text()


async def test_symbolic_links_to_pipes_are_followed(database_url: str, tmp_path: Path) -> None:
    """A link to a pipe is followed, because `/dev/stdout` is such a link."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_text))
    assert (await run_cli_on(database_url, "import", "-", "--errors", link, stdin=INVALID_LINE)).returncode == 1
    assert "patient_last_name" in await reading
    run = await run_cli_on(
        database_url, "export", "--resource", "doctors", "--format", "csv", "--output", "/dev/stdout"
    )
    assert run.stdout.startswith("unique_id,")
