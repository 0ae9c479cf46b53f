"""Settings are documented, checked at startup, and printed without secrets."""

import ast
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

import app.settings
from app.settings import ENVIRONMENT_PREFIX, InvalidSettingsError, Settings
from tests.processes import run_cli

DEPLOYING_PATH = Path(__file__).parents[1] / "docs" / "deploying.md"
PASSWORD = "s3cret-PASSWORD"  # noqa: S105  # it only has to be recognisable


def environment_variable(field: str) -> str:
    """Return the environment variable of a field."""
    return field.upper() if field.startswith("database_url") else f"{ENVIRONMENT_PREFIX}{field.upper()}"


ENVIRONMENT_VARIABLES = [environment_variable(field) for field in Settings.model_fields]
INVALID_VALUES = {
    "DATABASE_URL": f"mysql://user:{PASSWORD}@host/patients",
    "PATIENTS_POOL_SIZE": PASSWORD,
    "PATIENTS_LIST_CAP": f"0{PASSWORD}",
    "PATIENTS_CORS_ORIGINS": f"https://app.example.org/{PASSWORD}",
    "PATIENTS_PASSWORT": PASSWORD,
    "PATIENTS_DATABASE_URL": f"postgresql://user:{PASSWORD}@host/patients",
    "patients_pool": PASSWORD,
}


@pytest.mark.parametrize("field", Settings.model_fields)
def test_each_setting_is_documented_where_it_is_declared(field: str) -> None:
    """Each field is followed by a docstring that is a sentence."""
    tree = ast.parse(Path(app.settings.__file__).read_text())
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    field_index = next(
        index
        for index, node in enumerate(body)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == field
    )
    below = body[field_index + 1] if field_index + 1 < len(body) else None
    assert isinstance(below, ast.Expr), f"write a docstring under {field}"
    assert isinstance(below.value, ast.Constant), f"write a docstring under {field}"
    assert re.fullmatch(r"[A-Z].+\.", str(below.value.value), re.DOTALL), f"write a sentence for {field}"


def test_the_guide_names_the_settings_that_exist() -> None:
    """The table of `docs/deploying.md` has one row per setting, in order of declaration, with default and meaning."""
    section = re.search(r"^## Settings\n(.*?)(?=^## |\Z)", DEPLOYING_PATH.read_text(), re.DOTALL | re.MULTILINE)
    assert section is not None, "docs/deploying.md has no heading `## Settings`"
    rows = re.findall(r"^\| `(\w+)` \| (\S.*?) \| (\S.*?) \|$", section[1], re.MULTILINE)
    assert [row[0] for row in rows] == ENVIRONMENT_VARIABLES


@pytest.mark.parametrize("write", [repr, str, lambda settings: repr(settings.model_dump()), Settings.model_dump_json])
def test_the_databases_password_is_not_shown(write: object) -> None:
    """Printed settings, in any form, do not contain the URL's password."""
    settings = Settings.model_validate({"database_url": f"postgresql://user:{PASSWORD}@host/patients"})
    assert callable(write)
    assert PASSWORD not in write(settings)
    assert isinstance(settings.database_url, SecretStr)
    assert PASSWORD in settings.database_url.get_secret_value(), "the URL is not the one that was set"


@pytest.mark.parametrize("name", INVALID_VALUES)
def test_invalid_variable_is_named_without_its_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid or unknown variable is named without its value, which may be a secret."""
    monkeypatch.setenv(name, INVALID_VALUES[name])
    with pytest.raises(InvalidSettingsError, match=rf"^{name}: ") as caught:
        Settings.load()
    assert PASSWORD not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PATIENTS_POOL_SIZE", "many", "must be a whole number"),
        ("PATIENTS_POOL_SIZE", "0", "must be at least 1"),
        ("PATIENTS_DRAIN_SECONDS", "301", "must be at most 300.0"),
        ("PATIENTS_DRAIN_SECONDS", "long", "must be a number"),
        ("PATIENTS_CLIENT_TIMEOUT_SECONDS", "0", "must be more than 0.0"),
        ("PATIENTS_REQUIRE_IF_MATCH", "maybe", "must be true or false"),
        ("PATIENTS_AUTH", "yes", "must be 'off' or 'required'"),
    ],
)
def test_the_message_says_what_is_allowed(name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message for an invalid value says which values are allowed."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettingsError, match=rf"^{re.escape(f'{name}: {message}')}$"):
        Settings.load()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("patients_pool_sise", "did you mean PATIENTS_POOL_SIZE?"),
        ("PATIENTS_XYZ", "docs/deploying.md lists all settings"),
    ],
)
def test_an_unknown_variable_gets_the_nearest_setting(name: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown variable gets the nearest setting or, if none is near, the document that lists all settings."""
    monkeypatch.setenv(name, "1")
    with pytest.raises(InvalidSettingsError) as caught:
        Settings.load()
    assert str(caught.value) == f"{name}: there is no such setting; {hint}"


def test_all_invalid_variables_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed start names every invalid variable, one per line."""
    for name, value in INVALID_VALUES.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettingsError) as caught:
        Settings.load()
    assert {line.split(":")[0] for line in str(caught.value).splitlines()} == set(INVALID_VALUES)


@pytest.mark.parametrize("value", ["0", "-1", "1001", "", "4.5", "many"])
def test_pool_sizes_have_bounds(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool has 1 to 1000 connections."""
    monkeypatch.setenv("PATIENTS_POOL_SIZE", value)
    with pytest.raises(InvalidSettingsError, match=r"^PATIENTS_POOL_SIZE: "):
        Settings.load()


@pytest.mark.parametrize("url", ["postgresql://user@host/patients", "postgres://user@host/patients?sslmode=require"])
def test_both_postgresql_url_schemes_are_accepted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`postgres://`, which hosting services use, is accepted like `postgresql://`."""
    monkeypatch.setenv("DATABASE_URL", url)
    loaded = Settings.load().database_url
    assert loaded is not None
    assert loaded.get_secret_value() == url


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """One variable holds several browser origins, separated by commas."""
    monkeypatch.setenv("PATIENTS_CORS_ORIGINS", "https://app.example.org, http://localhost:5173,")
    assert Settings.load().cors_origins == ("https://app.example.org", "http://localhost:5173")


@pytest.mark.parametrize("origin", ["*", "app.example.org", "https://", "https://a.example/path", "ftp://a.example"])
def test_invalid_origins_are_refused(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An origin is a scheme, a host and an optional port: anything else would silently match no browser."""
    monkeypatch.setenv("PATIENTS_CORS_ORIGINS", origin)
    with pytest.raises(InvalidSettingsError, match=r"^PATIENTS_CORS_ORIGINS: "):
        Settings.load()


@pytest.mark.parametrize("name", ["PATIENTS_PASSWORT", "PATIENTS_POOL_SIZE", "DATABASE_URL"])
@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_command_exits_with_1_and_names_the_invalid_variable(command: str, name: str) -> None:
    """A command that finds an invalid variable exits with 1 and names it on stderr without its value."""
    ended = run_cli(command, **{name: INVALID_VALUES[name]})
    assert ended.returncode == 1
    assert f"{name}: " in ended.stderr
    assert PASSWORD not in ended.stderr + ended.stdout


def test_database_url_is_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may hold the URL; if it is unreadable, or DATABASE_URL is set too, the variable is named."""
    secret = tmp_path / "url"
    secret.write_text(f"postgresql://user:{PASSWORD}@host/patients\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(secret))
    settings = Settings.load()
    assert settings.database_url == SecretStr(f"postgresql://user:{PASSWORD}@host/patients")
    for name, value in (("DATABASE_URL", "postgresql://elsewhere"), ("DATABASE_URL_FILE", str(tmp_path / "none"))):
        monkeypatch.setenv(name, value)
        with pytest.raises(InvalidSettingsError, match="DATABASE_URL_FILE") as caught:
            Settings.load()
        assert PASSWORD not in str(caught.value)
        monkeypatch.delenv("DATABASE_URL", raising=False)


@pytest.mark.parametrize("url", [f"postgresql://user:{PASSWORD}/x@host/patients", f"postgresql://[{PASSWORD}/patients"])
def test_malformed_database_url_is_refused_without_repeating_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL whose password is not percent-encoded is refused with advice, and none of it is repeated."""
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(InvalidSettingsError, match=r"^DATABASE_URL: is not a URL: the port is a number") as caught:
        Settings.load()
    assert PASSWORD not in str(caught.value)
