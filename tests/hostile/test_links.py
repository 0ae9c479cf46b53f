"""Files that a command writes where somebody else may write too."""

import asyncio
import os
from pathlib import Path

from tests.transfer.support import command

WRONG = '{"patient_title": "Dr"}\n'
LINK = "cannot be written: It is a symbolic link. Name the file that it leads to"


async def test_no_link_to_a_file_is_followed(database_url: str, tmp_path: Path) -> None:
    """What it leads to stays as it was, or is not made; what is one's own is written anew."""
    theirs, link, nowhere = tmp_path / "theirs.csv", tmp_path / "link.csv", tmp_path / "nowhere.csv"
    theirs.write_text("precious")
    link.symlink_to(theirs)
    nowhere.symlink_to(tmp_path / "missing.csv")
    exported = tmp_path / "directory"
    exported.mkdir()
    (exported / "patients.ndjson").symlink_to(theirs)
    for way in (("--output", link), ("--output", nowhere), ("--directory", exported)):
        run = await command(database_url, "export", *way)
        assert (run.returncode, LINK in run.stderr) == (1, True), run.stderr
    run = await command(database_url, "import", "-", "--errors", link, given=WRONG)
    assert (run.returncode, f"{link} {LINK}. Nothing was stored." in run.stderr) == (1, True), run.stderr
    run = await command(database_url, "import", "-", "--errors", nowhere, given=WRONG)
    assert (run.returncode, "No such file" in run.stderr) == (1, True), run.stderr
    assert theirs.read_text() == "precious"
    assert not (tmp_path / "missing.csv").exists()
    assert link.is_symlink()
    own = tmp_path / "own.csv"
    own.write_text("x" * 10_000)
    assert (await command(database_url, "import", "-", "--errors", own, given=WRONG)).returncode == 1
    assert own.read_text().startswith("file,line,field")
    assert "x" * 100 not in own.read_text()


async def test_links_to_pipes_are_followed(database_url: str, tmp_path: Path) -> None:
    """As `/dev/stdout` is one."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_text))
    assert (await command(database_url, "import", "-", "--errors", link, given=WRONG)).returncode == 1
    assert "patient_last_name" in await reading
    run = await command(database_url, "export", "--resource", "doctors", "--format", "csv", "--output", "/dev/stdout")
    assert run.stdout.startswith("unique_id,")
