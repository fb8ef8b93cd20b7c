"""The house itself: its top level, its source root, what an import costs, and what no file may hold."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fissura.core.tasks import TASKS

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "platform" / "fissura"
TOP_LEVEL = {
    *("pyproject.toml", "README.md", "Makefile", "LICENSE", "cluster.yaml", "cluster.kuberay.yaml"),
    *("CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "examples"),
    *("platform", "search_spaces", "dashboards", "benchmarks", "docs", "tests"),
}
MODULES = sorted(PACKAGE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [
    Requirement(text)
    for text in [*PROJECT["dependencies"], *EXTRAS["edge"], *EXTRAS["dev"]]
    if not text.startswith("fissura[")
]
CONSTRAINTS = [
    line
    for line in (ROOT / "platform" / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
]
PINS = {
    canonicalize_name(name): version for name, _, version in (line.partition("==") for line in CONSTRAINTS)
}


@cache
def tree_of(path: Path) -> ast.Module:
    """A module, parsed once for all tests."""
    return ast.parse(path.read_text())


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python(code: str, *, cwd: Path, path: str = "") -> str:
    """What a fresh Python prints for `code`, started in `cwd` with `path` as its PYTHONPATH."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


class TestTopLevel:
    def test_holds_these_names_and_no_other(self) -> None:
        ignored = {
            line.strip("/") for line in (ROOT / ".gitignore").read_text().split() if line.startswith("/")
        }
        found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
        assert found - ignored == TOP_LEVEL
        assert (ROOT / ".ci" / "run").stat().st_mode & 0o111

    def test_the_source_root_is_not_a_package(self) -> None:
        assert not (ROOT / "platform" / "__init__.py").exists()
        assert not (ROOT / "platform.py").exists()

    @pytest.mark.parametrize(
        "path", ["", str(ROOT), str(ROOT / "platform")], ids=["none", "root", "source root"]
    )
    def test_platform_is_the_standard_library_s(self, path: str) -> None:
        found = Path(python("import platform; print(platform.__file__)", cwd=ROOT, path=path))
        assert found.name == "platform.py"
        assert not found.is_relative_to(ROOT / "platform")


class TestImports:
    @pytest.mark.parametrize(
        ("module", "heavy"),
        [
            ("fissura", {"ray", "torch", "optuna", "pandas", "plotly", "sklearn", "albumentations"}),
            ("fissura.metrics", {"ray", "torch", "optuna", "pandas", "plotly", "sklearn", "albumentations"}),
            ("fissura.data", {"ray", "torch", "optuna", "plotly"}),
            ("fissura.studies", {"ray", "torch"}),
            ("fissura.recipes", {"ray"}),
            ("fissura.cli", {"ray", "torch"}),
        ],
    )
    def test_leaves_out_what_it_does_not_need(self, module: str, heavy: set[str], tmp_path: Path) -> None:
        loaded = python(f"import sys, {module}; print(*sys.modules)", cwd=tmp_path).split()
        assert module in loaded
        assert heavy.isdisjoint(loaded)

    def test_the_version_is_that_of_the_installation_and_costs_no_import(self, tmp_path: Path) -> None:
        version, *loaded = python(
            "import sys, fissura; print(fissura.__version__, *sys.modules)", cwd=tmp_path
        ).split()
        assert version == importlib.metadata.version("fissura") == PROJECT["version"]
        assert {"ray", "torch", "numpy", "pydantic", "fissura.api"}.isdisjoint(loaded)

    def test_of_third_parties_are_declared_dependencies(self) -> None:
        providers = importlib.metadata.packages_distributions()
        # what needs an extra imports it late, and says so where it is missing
        texts = [*PROJECT["dependencies"], *EXTRAS["edge"]]
        declared = {canonicalize_name(Requirement(text).name) for text in texts}
        undeclared = {
            f"{relative(path)}: {name}"
            for path in MODULES
            for name in imported(tree_of(path))
            if name in providers
            and name != "fissura"
            and declared.isdisjoint(canonicalize_name(provider) for provider in providers[name])
        }
        assert not undeclared


PICKLE = {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
UNPICKLING = {"torch.load", "pd.read_pickle", "pandas.read_pickle"}


def unpickles(tree: ast.Module) -> bool:
    """Whether a module may run what a file holds."""
    if not imported(tree).isdisjoint(PICKLE):
        return True
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    allowed = [word.value for call in calls for word in call.keywords if word.arg == "allow_pickle"]
    return any(ast.unparse(value) != "False" for value in allowed) or any(
        ast.unparse(call.func) in UNPICKLING for call in calls
    )


class TestModules:
    def test_are_of_one_idea_each_with_its_docstring(self) -> None:
        long = {relative(path): lines for path in MODULES if (lines := path.read_text().count("\n")) > 350}
        # an exported bundle gets a copy of it, which imports nothing of the project
        assert long.pop("platform/fissura/classical/compact.py", 0) < 400
        assert not long
        silent = [
            relative(path) for path in MODULES if path.stat().st_size and not ast.get_docstring(tree_of(path))
        ]
        assert not silent

    def test_are_named_in_docstrings_as_they_are_called(self) -> None:
        """`room.module` and `room.module.Name`, which no import checks."""
        package = PACKAGE
        rooms = {path.parent.name for path in package.glob("*/__init__.py")}
        no_modules = {"data.normalisation", "training.json"}  # a recipe's field, a file
        wrong = []
        for path in [*MODULES, *(ROOT / "benchmarks").rglob("*.py")]:
            for dotted in re.findall(r"`(\w+(?:\.\w+)+)`", path.read_text()):
                room, *parts = dotted.split(".")
                if room not in rooms or dotted in no_modules:
                    continue
                place = package / room
                while len(parts) > 1 and (place / parts[0]).is_dir():
                    place /= parts.pop(0)
                if not (place / parts[0]).is_dir():
                    module = place / f"{parts[0]}.py"
                    module, *names = (
                        (module, *parts[1:]) if module.exists() else (place / "__init__.py", *parts)
                    )
                    if names and not re.search(rf"\b{names[0]}\b", module.read_text()):
                        wrong.append(f"{relative(path)}: {dotted}")
        assert not wrong

    def test_load_no_pickle(self) -> None:
        assert not [relative(path) for path in MODULES if unpickles(tree_of(path))]
        for text in (
            "import pickle",
            "torch.load(p)",
            "np.load(p, allow_pickle=x)",
            "from joblib import load",
        ):
            assert unpickles(ast.parse(text)), "the rule sees what it forbids"


class TestConstraints:
    @pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
    def test_pin_each_dependency_within_its_bounds(self, requirement: Requirement) -> None:
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">=", "<"}
        assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])

    def test_are_names_and_exact_versions_alone(self) -> None:
        assert [
            line for line in CONSTRAINTS if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!]*", line)
        ] == []
        assert len(PINS) == len(CONSTRAINTS)

    def test_pin_all_that_the_dependencies_pull_in(self) -> None:
        assert {name for name, _ in closure(REQUIREMENTS)} <= PINS.keys()


def test_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_hooks_of_a_commit_are_programs_of_the_environment_and_download_nothing() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook for repository in repositories for hook in repository["hooks"]]
    assert {repository["repo"] for repository in repositories} == {"local"}
    assert {hook["language"] for hook in hooks} == {"system"}
    programs = [Path(hook["entry"].split()[0]) for hook in hooks]
    assert all(Path(sys.executable).with_name(program.name).exists() for program in programs)
    assert {program.parent for program in programs} == {Path(".venv/bin")}


def test_contributing_names_what_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    places = re.findall(r"`(?:python )?((?:platform|tests|search_spaces|docs)/[\w./]*)", text)
    patterns = [re.sub("NAME|ROOM", "*", place).rstrip("/") for place in places]
    assert len(patterns) > 15
    assert [pattern for pattern in patterns if not any(ROOT.glob(pattern))] == []
    told = [*MODULES, *(ROOT / "tests" / "contract").glob("*.py"), ROOT / "pyproject.toml"]
    source = "\n".join(path.read_text() for path in told)
    names = set(re.findall(r"`([A-Z][A-Za-z]+|[A-Z]{4,}|[a-z]+_[a-z_]+)(?:\(\w*\))?`", text)) - {"NAME"}
    assert {"AnyLoss", "LAYOUTS", "full_precision"} <= names
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", source)) == []


# Spelt with brackets so that this file does not match itself.
FORBIDDEN = re.compile(
    r"""(?<![\w.~$}])/(?:wor[k]|opt/pyp[i]|opt/wheel[s]|roo[t]|User[s])/"""
    r"""|pyp[i]\.org|pythonhoste[d]\.org|download\.pytorc[h]\.org|anacond[a]\.(?:org|com)|index-ur[l]"""
)


def texts() -> Iterator[Path]:
    """Every text file of the project, build outputs left out."""
    for name in sorted({*TOP_LEVEL, ".ci", ".gitignore", ".editorconfig", ".pre-commit-config.yaml"}):
        top = ROOT / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            built = any(part == "__pycache__" or part.endswith(".egg-info") for part in path.parts)
            if (
                path.is_file()
                and not built
                and path.suffix not in {".png", ".jpg", ".parquet", ".npz", ".safetensors"}
            ):
                yield path


def test_no_file_names_a_place_on_one_machine_or_a_package_registry() -> None:
    found = [
        f"{relative(path)}:{number}: {line.strip():.80}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if FORBIDDEN.search(line)
    ]
    assert not found


def test_a_class_name_occurs_once() -> None:
    names = [
        node.name for path in MODULES for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)
    ]
    assert sorted(name for name, times in Counter(names).items() if times > 1) == []


def test_no_task_is_named_in_a_comparison() -> None:
    names = set(TASKS)
    found = [
        f"{relative(path)}:{node.lineno}: {ast.unparse(node)}"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Compare | ast.MatchValue)
        and any(isinstance(part, ast.Constant) and part.value in names for part in ast.walk(node))
    ]
    assert not found, "ask the `Task` for its part; see docs/design.md"


def imported(tree: ast.Module) -> set[str]:
    """The top-level names of all modules that `tree` imports, wherever in the file."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def closure(requirements: list[Requirement]) -> set[tuple[str, str]]:
    """Every (distribution, extra or "") that `requirements` pull into this environment."""
    todo, seen = list(requirements), set[tuple[str, str]]()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for found, extra in seen if found == name}:
            seen.add((name, extra))
            further = map(Requirement, importlib.metadata.requires(name) or [])
            todo += [
                each for each in further if each.marker is None or each.marker.evaluate({"extra": extra})
            ]
    return seen
