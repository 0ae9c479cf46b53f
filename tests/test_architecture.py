"""The rules of the code's shape, read from the code itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import iter_route_contexts

from app.main import create_app
from app.settings import Settings

REPOSITORY_ROOT = Path(__file__).parents[1]
SYNTAX_TREES = {
    path.relative_to(REPOSITORY_ROOT).as_posix(): ast.parse(path.read_text())
    for path in sorted(REPOSITORY_ROOT.glob("app/**/*.py"))
}
RESOURCE_PACKAGES = ("doctors", "hospitals", "patients", "profiles")
RESOURCE_MODULES = ("routes", "schemas", "service", "repository")
MAX_FILE_LINES = 400

FORBIDDEN_IMPORTS = {
    "routes": ("app.models", "app.db.base", "app.db.repository", "sqlalchemy"),
    "service": ("app.http", "fastapi", "starlette", "sqlalchemy.orm", "*.routes"),
    "repository": ("app.http", "fastapi", "starlette", "*.routes", "*.service"),
    "schemas": ("app.http", "fastapi", "starlette", "*.routes", "*.service", "*.repository"),
}
"""By a file's name: what it must not import. `*.routes` is any module of that name."""


def module_name(file: str) -> str:
    """The name by which a file is imported."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULE_NAMES = {module_name(file) for file in SYNTAX_TREES}


def imported_modules(file: str) -> set[str]:
    """The modules that a file imports, at its top or inside a function."""
    imported: set[str] = set()
    for node in ast.walk(SYNTAX_TREES[file]):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: import by the full name, `from app.…`"
            assert node.module is not None
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= {node.module} | (members & MODULE_NAMES)
    return imported


def matches_pattern(name: str, pattern: str) -> bool:
    if pattern.startswith("*"):
        return name.startswith("app.") and name.endswith(pattern[1:])
    return name == pattern or name.startswith(f"{pattern}.")


def resource_of(name: str) -> str | None:
    """The resource that a module belongs to, if it belongs to one."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in RESOURCE_PACKAGES else None


def attribute_uses(name: str) -> Iterator[str]:
    """Where an attribute of this name is used, as `file:line`."""
    for file, tree in SYNTAX_TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr == name:
                yield f"{file}:{node.lineno}"


@pytest.mark.parametrize("file", [file for file in SYNTAX_TREES if Path(file).stem in FORBIDDEN_IMPORTS])
def test_imports_go_one_way(file: str) -> None:
    """Routes import services and repositories, services repositories, repositories models; never the other way."""
    wrong = {
        name
        for name in imported_modules(file)
        for pattern in FORBIDDEN_IMPORTS[Path(file).stem]
        if matches_pattern(name, pattern)
    }
    assert not wrong, (
        f"{file} imports {sorted(wrong)}. One way only: routes → service → repository → models; HTTP stays in routes. "
        "Move what is needed to the layer it belongs to (design, section 4)."
    )


@pytest.mark.parametrize("file", [file for file in SYNTAX_TREES if file.startswith("app/models/")])
def test_models_import_only_db_base(file: str) -> None:
    """The tables import of `app` only `app.db.base` and each other."""
    own = {name for name in imported_modules(file) if matches_pattern(name, "app")}
    wrong = {name for name in own if name != "app.db.base" and not matches_pattern(name, "app.models")}
    assert not wrong, f"{file} imports {sorted(wrong)}. Models are the lowest layer: they import only app.db.base."


@pytest.mark.parametrize(
    "file", [file for file in SYNTAX_TREES if file.startswith(("app/resource/", "app/db/", "app/http/"))]
)
def test_shared_code_imports_no_resource(file: str) -> None:
    """Shared code imports no resource: it would have to change with each."""
    wrong = {name for name in imported_modules(file) if resource_of(name)}
    assert not wrong, f"{file} imports {sorted(wrong)}. What resources share takes them as arguments."


@pytest.mark.parametrize("file", [file for file in SYNTAX_TREES if resource_of(module_name(file))])
def test_resources_do_not_import_each_other(file: str) -> None:
    """Resources import nothing of each other, but patients, which have the others inside them."""
    own = resource_of(module_name(file))
    foreign = {name for name in imported_modules(file) if resource_of(name) not in {None, own}}
    allowed = {"app/patients/service.py": ".repository", "app/patients/schemas.py": ".schemas"}.get(file)
    wrong = {name for name in foreign if allowed is None or not name.endswith(allowed)}
    assert not wrong, (
        f"{file} imports {sorted(wrong)}. Only patients/service.py uses other resources' repositories "
        "(and patients/schemas.py their schemas)."
    )


@pytest.mark.parametrize("file", [file for file in SYNTAX_TREES if not resource_of(module_name(file))])
def test_repositories_are_imported_only_by_their_resource(file: str) -> None:
    """Code outside of the resources asks their services: rules that a service holds cannot be gone around."""
    wrong = {name for name in imported_modules(file) if resource_of(name) and name.endswith(".repository")}
    assert not wrong, f"{file} imports {sorted(wrong)}. Use the resource's service."


def test_commit_is_called_in_one_place_only() -> None:
    """`commit` stands once under app/: in `Database.transaction`."""
    uses = list(attribute_uses("commit"))
    assert [place.split(":")[0] for place in uses] == ["app/db/database.py"], (
        f"`commit` stands at {uses}. One request is one transaction: pass the work to Database.transaction."
    )


@pytest.mark.parametrize("name", ["begin", "rollback"])
def test_begin_and_rollback_are_never_called(name: str) -> None:
    """`begin` commits when it ends, and `rollback` hides what failed: neither stands under app/."""
    uses = list(attribute_uses(name))
    assert not uses, f"`{name}` stands at {uses}. Pass the work to Database.transaction; raise to undo it."


@pytest.mark.parametrize("resource", RESOURCE_PACKAGES)
def test_a_resource_has_the_four_files(resource: str) -> None:
    """Every resource's folder reads as every other: routes, schemas, service, repository."""
    files = {path.name for path in (REPOSITORY_ROOT / "app" / resource).iterdir() if path.name != "__pycache__"}
    assert files == {"__init__.py", *(f"{part}.py" for part in RESOURCE_MODULES)}, (
        f"app/{resource} holds exactly routes.py, schemas.py, service.py, repository.py. "
        "What all resources share belongs in app/resource, anything else in a folder of its own."
    )


@pytest.mark.parametrize("file", SYNTAX_TREES)
def test_no_file_exceeds_the_line_limit(file: str) -> None:
    """No file under app/ is longer than a person reads at once."""
    lines = len((REPOSITORY_ROOT / file).read_text().splitlines())
    assert lines <= MAX_FILE_LINES, (
        f"{file} has {lines} lines. Split it by what its parts are about, below {MAX_FILE_LINES}."
    )


@pytest.mark.parametrize("file", [file for file in SYNTAX_TREES if not file.startswith("app/cli/")])
def test_only_commands_print(file: str) -> None:
    """Output of the service is its log: `print` stands only in commands."""
    printed = [
        f"{file}:{node.lineno}"
        for node in ast.walk(SYNTAX_TREES[file])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not printed, f"print at {printed}. Use structlog; only app/cli talks to a terminal."


def test_every_resource_route_declares_a_scope() -> None:
    """Every route of a resource, six of each, is one of ours that authenticates: it says which scope it needs."""
    app = create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"}))
    prefixes = tuple(f"/{resource}/" for resource in RESOURCE_PACKAGES)
    routes = [route for route in iter_route_contexts(app.routes) if str(route.path).startswith(prefixes)]
    assert len(routes) >= 6 * len(RESOURCE_PACKAGES), "the walk does not see all routes: mend this test"
    without = [route.name for route in routes if getattr(route.original_route, "required_scope", None) is None]
    assert not without, (
        f"{without} have no principal. Declare `openapi_extra=needs(Scope.…)` on a route of make_router."
    )
