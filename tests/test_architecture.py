"""Rules for the structure of the code, checked against the code itself."""

import ast
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path

import pytest
from fastapi.routing import iter_route_contexts

from app.api.routing import AuditedRoute
from app.db.base import Base
from app.main import create_app
from app.settings import Settings

REPOSITORY_ROOT = Path(__file__).parents[1]
FILES = [path.relative_to(REPOSITORY_ROOT).as_posix() for path in sorted(REPOSITORY_ROOT.glob("app/**/*.py"))]
RESOURCE_PACKAGES = ("doctors", "hospitals", "patients", "profiles")
RESOURCE_MODULES = ("routes", "schemas", "service", "repository")
MAX_FILE_LINES = 400
MAX_PACKAGE_LINES = 2000

LAYERS = (
    "cli",
    "arguments",
    "files",
    "terminal",
    "server",
    "main",
    "background_tasks",
    "demo",
    "checks",
    "uploads",
    "transfer",
    "staging",
    "registers",
    "table_files",
    "feed",
    "fhir",
    "fhir_search",
    "fhir_resources",
    "patients",
    "profiles",
    "hospitals",
    "doctors",
    "duplicates",
    "about",
    "merging",
    "api",
    "journal",
    "audit",
    "matching",
    "likeness",
    "webhooks",
    "changes",
    "search",
    "search_scores",
    "search_text",
    "vocabulary",
    "listing",
    "records",
    "patient_identifiers",
    "statements",
    "auth",
    "fields",
    "http",
    "models",
    "db",
    "admission",
    "embedded",
    "connection_errors",
    "observability",
    "memory",
    "paths",
    "request_state",
    "contract",
    "settings",
    "locality",
    "suggestions",
    "counts",
    "errors",
    "error_types",
    "identifiers",
)
"""The packages and modules of `app`, in reading order: each imports only what is below it."""

FORBIDDEN_IMPORTS = {
    "routes": ("app.models", "app.db.base", "sqlalchemy"),
    "service": ("app.http", "fastapi", "starlette", "sqlalchemy.orm", "*.routes"),
    "repository": ("app.http", "fastapi", "starlette", "*.routes", "*.service"),
    "schemas": ("app.http", "fastapi", "starlette", "*.routes", "*.service", "*.repository"),
}
"""Modules that a file must not import, by the file's name; `*.routes` is any module of that name."""


def module_name(file: str) -> str:
    """Return the name by which a file is imported."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULE_NAMES = {module_name(file) for file in FILES}


@cache
def syntax_tree(file: str) -> ast.Module:
    return ast.parse((REPOSITORY_ROOT / file).read_text())


@cache
def imported_modules(file: str) -> set[str]:
    """Return the modules that a file imports, at its top or inside a function."""
    imported: set[str] = set()
    for node in ast.walk(syntax_tree(file)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: use an absolute import, `from app.…`"
            assert node.module is not None
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= {node.module} | (members & MODULE_NAMES)
    return imported


def matches_pattern(name: str, pattern: str) -> bool:
    if pattern.startswith("*"):
        return name.startswith("app.") and name.endswith(pattern[1:])
    return name == pattern or name.startswith(f"{pattern}.")


def resource_of(name: str) -> str | None:
    """Return the resource that a module belongs to, if any."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in RESOURCE_PACKAGES else None


def attribute_uses(name: str) -> Iterator[str]:
    """Yield each use of an attribute of this name, as `file:line`."""
    for file in FILES:
        for node in ast.walk(syntax_tree(file)):
            if isinstance(node, ast.Attribute) and node.attr == name:
                yield f"{file}:{node.lineno}"


def layer_of(name: str) -> str:
    """Return the layer that a module belongs to."""
    return name.split(".")[1]


def violations(files: list[str], wrong_in: Callable[[str], Collection[str]]) -> dict[str, list[str]]:
    """Return what is wrong in each of the files that break a rule.

    A test checks all files at once, because a test for each file takes several times as long as the rule itself.
    """
    assert files, "the rule concerns no file: fix it"
    return {file: sorted(wrong) for file in files if (wrong := wrong_in(file))}


def test_no_module_imports_from_a_layer_above() -> None:
    """Every import leads from a package or module of `LAYERS` to itself or to one below it."""
    files = [file for file in FILES if file != "app/__init__.py"]
    new = {layer_of(module_name(file)) for file in files} - {*LAYERS}
    assert not new, f"{sorted(new)} are new: add them to LAYERS above everything that they import."

    def imports_from_above(file: str) -> set[str]:
        own = LAYERS.index(layer_of(module_name(file)))
        imported = {name for name in imported_modules(file) if name.startswith("app.")}
        return {name for name in imported if LAYERS.index(layer_of(name)) < own}

    wrong = violations(files, imports_from_above)
    assert not wrong, (
        f"These files import from above them: {wrong}. Move the code, or pass what it needs as an argument."
    )


@pytest.mark.parametrize("package", sorted({file.split("/")[1] for file in FILES if file.count("/") > 1}))
def test_no_package_exceeds_the_line_limit(package: str) -> None:
    """No package is larger than a person can read in an hour or two."""
    files = (REPOSITORY_ROOT / "app" / package).glob("**/*.py")
    lines = sum(len(file.read_text().splitlines()) for file in files)
    assert lines <= MAX_PACKAGE_LINES, f"app/{package} has {lines} lines. Split it by subject."


def test_imports_go_one_way() -> None:
    """Imports go one way: from routes to services and repositories, from services to repositories,
    and from repositories to models.
    """
    wrong = violations(
        [file for file in FILES if Path(file).stem in FORBIDDEN_IMPORTS],
        lambda file: {
            name
            for name in imported_modules(file)
            for pattern in FORBIDDEN_IMPORTS[Path(file).stem]
            if matches_pattern(name, pattern)
        },
    )
    assert not wrong, (
        f"These files import what they must not: {wrong}. Imports go one way: routes → service → repository → models, "
        "HTTP in routes. Move the code to the layer that it belongs to."
    )


def test_models_import_only_db_base() -> None:
    """Models import nothing of `app` but `app.db.base` and each other."""
    wrong = violations(
        [file for file in FILES if file.startswith("app/models/")],
        lambda file: {
            name
            for name in imported_modules(file)
            if matches_pattern(name, "app") and name != "app.db.base" and not matches_pattern(name, "app.models")
        },
    )
    assert not wrong, f"These models import more: {wrong}. Models are the lowest layer and import only app.db.base."


def test_resources_do_not_import_each_other() -> None:
    """Resources do not import each other, except for patients, which contain the others."""

    def imports_of_other_resources(file: str) -> set[str]:
        own = resource_of(module_name(file))
        foreign = {name for name in imported_modules(file) if resource_of(name) not in {None, own}}
        allowed = {"app/patients/service.py": ".repository", "app/patients/schemas.py": ".schemas"}.get(file)
        return {name for name in foreign if allowed is None or not name.endswith(allowed)}

    files = [file for file in FILES if resource_of(module_name(file))]
    wrong = violations(files, imports_of_other_resources)
    assert not wrong, (
        f"These files import other resources: {wrong}. Only patients/service.py uses other resources' repositories "
        "(and patients/schemas.py their schemas)."
    )


def test_repositories_are_imported_only_by_their_resource() -> None:
    """Code outside a resource uses its service, so that the service's rules cannot be bypassed."""
    wrong = violations(
        [file for file in FILES if not resource_of(module_name(file))],
        lambda file: {name for name in imported_modules(file) if resource_of(name) and name.endswith(".repository")},
    )
    assert not wrong, f"These files import repositories: {wrong}. Use the resource's service."


def test_commit_is_called_in_one_place_only() -> None:
    """`commit` is called only once in app/, in `Database.transaction`."""
    uses = list(attribute_uses("commit"))
    assert [place.split(":")[0] for place in uses] == ["app/db/database.py"], (
        f"`commit` is called at {uses}. One request is one transaction: pass the work to Database.transaction."
    )


@pytest.mark.parametrize("name", ["begin", "rollback"])
def test_transactions_begin_and_end_in_one_file_only(name: str) -> None:
    """`begin` and `rollback` are called only in the module of `Database`, because a rollback would hide a failure."""
    uses = list(attribute_uses(name))
    assert {place.split(":")[0] for place in uses} == {"app/db/database.py"}, (
        f"`{name}` is called at {uses}. Pass the work to Database.transaction, and raise to undo it."
    )


@pytest.mark.parametrize("resource", RESOURCE_PACKAGES)
def test_a_resource_has_the_four_files(resource: str) -> None:
    """Every resource has the same four modules: routes, schemas, service and repository."""
    files = {path.name for path in (REPOSITORY_ROOT / "app" / resource).iterdir() if path.name != "__pycache__"}
    assert files == {"__init__.py", *(f"{part}.py" for part in RESOURCE_MODULES)}, (
        f"app/{resource} holds exactly routes.py, schemas.py, service.py, repository.py. "
        "Code that resources share belongs in app/api, app/listing or app/records, other code in its own package."
    )


def test_no_file_exceeds_the_line_limit() -> None:
    """No file in app/ is longer than a person reads in one sitting."""
    lines_by_file = {file: len((REPOSITORY_ROOT / file).read_text().splitlines()) for file in FILES}
    too_long = {file: lines for file, lines in lines_by_file.items() if lines > MAX_FILE_LINES}
    assert not too_long, (
        f"These files are too long: {too_long}. Split them by subject into files of at most {MAX_FILE_LINES} lines."
    )


def test_only_commands_print() -> None:
    """Only commands call `print`, because the service writes its output to the log."""
    printed = [
        f"{file}:{node.lineno}"
        for file in FILES
        if not file.startswith(("app/cli/", "app/terminal/"))
        for node in ast.walk(syntax_tree(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not printed, f"`print` is called at {printed}. Use structlog; only commands write to a terminal."


def test_every_resource_route_declares_a_scope() -> None:
    """Every route of a resource, at least six for each, authenticates its caller and declares the scope it requires."""
    app = create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"}))
    prefixes = tuple(f"/{resource}/" for resource in RESOURCE_PACKAGES)
    routes = [route for route in iter_route_contexts(app.routes) if str(route.path).startswith(prefixes)]
    assert len(routes) >= 6 * len(RESOURCE_PACKAGES), "this test does not find all routes: fix it"
    without = [route.name for route in routes if getattr(route.original_route, "required_scope", None) is None]
    assert not without, (
        f"{without} require no scope. Declare `openapi_extra=requires(Scope.…)` on a route of make_router."
    )


def test_audited_routes_are_tagged_with_their_table() -> None:
    """The tag of an audited route is the resource in its audit rows, by which these refer to the journal."""
    app = create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"}))
    routes = [route.original_route for route in iter_route_contexts(app.routes)]
    tags = {str(route.tags[0]) for route in routes if isinstance(route, AuditedRoute)}
    assert tags == {"patients", "profiles", "audit"}
    assert tags - {"audit"} <= Base.metadata.tables.keys()
