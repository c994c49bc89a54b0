"""The rules of the house as functions over a tree of files; `test_architecture.py` asks them.

Each rule takes the root of a tree and yields sentences that name the file and the fault, so that
the same rules can be tried on a tree with planted faults. Style that matters is a test.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOMS = ("realtime", "commerce", "live", "loadtests")
TOP_FOLDERS = {*ROOMS, "web_client", "tests"}
NOT_CODE = {"data", "var", "node_modules", "test-results", "__pycache__"}
CODE_SUFFIXES = {".py", ".pyi", ".lua", ".js", ".mjs", ".ts", ".css", ".html", ".sql", ".sh"}

MAY_IMPORT = {
    "realtime": set[str](),
    "commerce": set[str](),
    "live": {"realtime", "commerce"},
    "loadtests": {"realtime", "commerce", "live"},
}
WIRE_MODULES = {"realtime.wire", "realtime.errors", "live.codes", "live.messages"}
ON_THE_WIRE_ONLY = {"client.py", "users.py", "locustfile.py", "swarm.py", "shapes.py", "tally.py"}
"""Files of loadtests that stand for strangers: they know what a client author knows."""

LICENCES = {
    "redis": "_redis.py",
    "hiredis": "_redis.py",
    "valkey": "_redis.py",
    "sqlalchemy": "_sql.py",
    "alembic": "_sql.py",
    "psycopg": "_sql.py",
    "aiosqlite": "_sql.py",
    "sqlite3": "_sql.py",
    "stripe": "_stripe.py",
}
ADAPTERS = ("_redis", "_sql", "_stripe", "_uvicorn")
COMPOSITION_ROOT = ("live/app.py", "live/trade.py", "live/office.py")
"""Of a node, of its shop's side, and of the commands beside it."""
SERVER_STARTER = ("live/__main__.py", "_uvicorn")
"""The server runs the composed program, so it cannot be part of it."""
SANDBOX = "commerce/sandbox/"
MIGRATIONS = "live/migrations/"
WEB_FRAMEWORK = {"starlette", "uvicorn", "typer"}
ENVIRONMENT_READER = "live/settings.py"
BANNED_NAMES = {"util", "utils", "helper", "helpers", "common", "base", "core", "misc", "shared"}

DOCSTRING_LINES_MIN = 3
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

TYPE_CHECKING = {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
CLOCKS = {
    "time.time",
    "time.time_ns",
    "datetime.now",
    "datetime.utcnow",
    "uuid.uuid4",
    "uuid.uuid1",
}
CLOCK_OWNERS = ("live/trade.py", "live/__main__.py", SANDBOX, "loadtests/")


@dataclass(frozen=True)
class Module:
    """One Python file of ours, parsed once."""

    where: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def room(self) -> str:
        return self.where.partition("/")[0]

    @cached_property
    def imports(self) -> list[tuple[str, int]]:
        """Every dotted name it imports and the level of the import (0: absolute)."""
        return [found for node in ast.walk(self.tree) for found in _imported(node)]

    @cached_property
    def adapters(self) -> set[str]:
        """Our adapter modules that it imports at run time."""
        for_types = {
            id(node)
            for test in ast.walk(self.tree)
            if isinstance(test, ast.If) and _dotted(test.test) in TYPE_CHECKING
            for statement in test.body
            for node in ast.walk(statement)
        }
        names = {
            name
            for node in ast.walk(self.tree)
            if id(node) not in for_types
            for name, _level in _imported(node)
        }
        return {n for n in names if n.partition(".")[0] in ROOMS and n.endswith(ADAPTERS)}


def _imported(node: ast.AST) -> list[tuple[str, int]]:
    if isinstance(node, ast.Import):
        return [(alias.name, 0) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        return [(name, node.level) for name in names]
    return []


def modules(root: Path, rooms: tuple[str, ...] = ROOMS) -> list[Module]:
    """The Python files of the rooms, in order of their names."""
    return [
        Module(path.relative_to(root).as_posix(), path)
        for room in rooms
        for path in sorted((root / room).rglob("*.py"))
    ]


def arrows(root: Path) -> Iterator[str]:
    """live → realtime, live → commerce, and no other arrow; nobody imports the sandbox."""
    for module in modules(root):
        wire_only = module.room == "loadtests" and module.path.name in ON_THE_WIRE_ONLY
        for name, _level in module.imports:
            top = name.partition(".")[0]
            if top in ROOMS and top != module.room and top not in MAY_IMPORT[module.room]:
                yield f"{module.where} imports {name}: no arrow goes from {module.room} to {top}"
            if name.startswith("commerce.sandbox") and not module.where.startswith(SANDBOX):
                yield f"{module.where} imports {name}: the sandbox is a process of its own"
            if wire_only and top in {"realtime", "commerce", "live"} and not _on_the_wire(name):
                yield f"{module.where} imports {name}: it may know the wire modules only"
            if top == "tests":
                yield f"{module.where} imports {name}: the product does not know its tests"


def _on_the_wire(name: str) -> bool:
    return name in {"realtime", "live"} or any(
        name == module or name.startswith(f"{module}.") for module in WIRE_MODULES
    )


def licences(root: Path) -> Iterator[str]:
    """A technology is imported by the files whose suffix names it, and by no other."""
    for module in modules(root, ("realtime", "commerce", "live")):
        for name in sorted({name for name, level in module.imports if level == 0}):
            top = name.partition(".")[0]
            suffix = LICENCES.get(top)
            in_migrations = module.where.startswith(MIGRATIONS) and suffix == "_sql.py"
            own_store = module.where.startswith(SANDBOX) and top == "sqlite3"
            if suffix and not module.where.endswith(suffix) and not in_migrations | own_store:
                yield f"{module.where} imports {name}: only *{suffix} may"
            reaches_in = (
                name.startswith("uvicorn.") and not name.removeprefix("uvicorn.")[0].isupper()
            )
            if reaches_in and not module.where.endswith("_uvicorn.py"):
                yield f"{module.where} imports {name}: only *_uvicorn.py reaches into uvicorn"
            if top in WEB_FRAMEWORK and module.room != "live":
                adapter = module.where.endswith("_uvicorn.py") and top == "uvicorn"
                if not adapter and not module.where.startswith(SANDBOX):
                    yield f"{module.where} imports {name}: only live knows the web framework"


def adapters(root: Path) -> Iterator[str]:
    """Adapters are chosen by the composition root; adapters of one technology know each other.

    A port exists only where two adapters or a simulation need one, so elsewhere the class itself is
    the type: importing it for the type checker alone (`if TYPE_CHECKING:`) chooses nothing.
    """
    for module in modules(root, ("realtime", "commerce", "live")):
        if module.where in COMPOSITION_ROOT or module.where.startswith(MIGRATIONS):
            continue
        for name in sorted(module.adapters):
            suffix = next(suffix for suffix in ADAPTERS if name.endswith(suffix))
            if module.path.stem.endswith(suffix) or (module.where, suffix) == SERVER_STARTER:
                continue
            yield f"{module.where} names the adapter {name}: only {COMPOSITION_ROOT[0]} may"


def docstrings(root: Path) -> Iterator[str]:
    """Every module says what it is for and why; an `__init__` says that and nothing else."""
    for module in modules(root):
        if "/versions/" in module.where:
            continue
        text = ast.get_docstring(module.tree) or ""
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < DOCSTRING_LINES_MIN:
            yield f"{module.where} opens with {len(lines)} lines of docstring"
        if module.path.name == "__init__.py" and len(module.tree.body) > 1:
            yield f"{module.where} holds more than its docstring"
    for path in _code_files(root):
        opening = path.read_text(encoding="utf-8").lstrip()[:2] if path.suffix in _COMMENTS else ""
        if path.suffix in _COMMENTS and opening not in _COMMENTS[path.suffix]:
            yield f"{path.relative_to(root)} does not open with a comment that explains it"


_COMMENTS = {".lua": {"--"}, ".js": {"//", "/*"}, ".mjs": {"//", "/*"}}


def environment(root: Path) -> Iterator[str]:
    """One module reads the environment."""
    for module in modules(root, ("realtime", "commerce", "live")):
        if module.where == ENVIRONMENT_READER:
            continue
        for node in ast.walk(module.tree):
            name = _dotted(node)
            if name in {"os.environ", "os.getenv", "os.environb"}:
                yield f"{module.where}:{_line(node)} reads {name}: only {ENVIRONMENT_READER} may"
        for name, _level in module.imports:
            if name in {"os.environ", "os.getenv"}:
                yield f"{module.where} imports {name}: only {ENVIRONMENT_READER} may"


def clocks(root: Path) -> Iterator[str]:
    """Time and ids are arguments; the composition root and the programs own the real ones."""
    for module in modules(root):
        if module.where.startswith(CLOCK_OWNERS):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and (name := _dotted(node.func)) is not None:
                short = ".".join(name.split(".")[-2:])
                if short in CLOCKS:
                    yield f"{module.where}:{node.lineno} calls {short}: take it as an argument"


def names(root: Path) -> Iterator[str]:
    """A thing without a noun has no home yet; nobody imports another module's `_private` name."""
    for module in modules(root):
        for part in (module.path.stem, *(parent.name for parent in module.path.parents)):
            if part == root.name:
                break
            if part in BANNED_NAMES:
                yield f"{module.where}: {part} is not the name of a thing"
        for name, _level in module.imports:
            parts = name.split(".")
            if parts[0] in ROOMS and parts[-1].startswith("_") and parts[-1] != "__main__":
                yield f"{module.where} imports the private {name}"


def sizes(root: Path) -> Iterator[str]:
    """Past these lengths something wants to be two things."""
    for module in modules(root):
        if "/versions/" in module.where:
            continue
        lines = len(module.text.splitlines())
        if lines > MODULE_LINES_MAX:
            yield f"{module.where} has {lines} lines of {MODULE_LINES_MAX}"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    yield f"{module.where}:{node.lineno} {node.name} has {length} lines"


def relative_imports(root: Path) -> Iterator[str]:
    """Imports are absolute: a reader sees from where."""
    for module in modules(root, (*ROOMS, "tests")):
        for name, level in module.imports:
            if level:
                yield f"{module.where} imports {'.' * level}{name}"


def bounds(root: Path) -> Iterator[str]:
    """Every queue has a bound."""
    for module in modules(root):
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call) or node.args or node.keywords:
                continue
            name = (_dotted(node.func) or "").split(".")[-1]
            if name in {"Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"}:
                yield f"{module.where}:{node.lineno} makes a {name} without a bound"


def places(root: Path) -> Iterator[str]:
    """Code lies in the rooms, nowhere else."""
    for path in _code_files(root):
        where = path.relative_to(root)
        if where.parts[0] not in TOP_FOLDERS:
            yield f"{where} lies outside {', '.join(sorted(TOP_FOLDERS))}"


RULES = (
    arrows,
    licences,
    adapters,
    docstrings,
    environment,
    clocks,
    names,
    sizes,
    relative_imports,
    bounds,
    places,
)


def _code_files(root: Path) -> Iterator[Path]:
    for entry in sorted(root.iterdir()):
        if entry.name.startswith(".") or entry.name in NOT_CODE:
            continue
        for path in [entry] if entry.is_file() else sorted(entry.rglob("*")):
            parts = path.relative_to(root).parts
            if path.suffix in CODE_SUFFIXES and not {"vendor", *NOT_CODE} & set(parts):
                yield path


def _dotted(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        left = _dotted(node.value)
        return f"{left}.{node.attr}" if left else None
    return None


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))
