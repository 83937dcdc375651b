"""Who may import whom, read from the code; and what importing the package costs."""

import ast
import importlib.resources
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import bayesgmm

ROOT = Path(bayesgmm.__file__).parent
LAYERS = [  # a module may import from its own layer and from those after it
    {"__main__"},
    {"cli"},
    {"page", "plots", "selection", "sklearn"},
    {"summary"},
    {"clusters"},
    {"bayes"},
    {"em"},
    {"alignment"},
    {"mixture"},
    {"checkpoints"},
    {"cluster", "covariance", "datasets", "expectation", "observations", "parts", "passes", "second_order", "sources"},
    {"noise", "patterns", "measurement", "tables"},
    {"intervals"},
    {"names", "native", "errors", "files", "progress"},
]
NUMPY_SIDE = {"errors", "files", "native", "observations", "mixture", "expectation", "covariance", "alignment", "em"}
NUMPY_SIDE |= {
    "checkpoints",
    "second_order",
    "clusters",
    "noise",
    "parts",
    "passes",
    "patterns",
    "measurement",
    "sources",
    "tables",
}
IN_FUNCTIONS = {"pandas"}  # what the numpy side may import where it is asked for, as in to_dataframe
HEAVY = {"pymc", "pytensor", "xarray", "arviz", "matplotlib", "sklearn", "pandas", "nutpie", "dask", "distributed"}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem != "__init__")


def module_of(path):
    names = list(path.relative_to(ROOT.parent).with_suffix("").parts)
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


FILES = {module_of(path): path for path in MODULES}


def imports(path, within_functions=True):
    """Every module that a file imports outside TYPE_CHECKING, at its top or within its functions too."""
    found = set()

    def visit(node):
        if isinstance(node, ast.FunctionDef) and not within_functions:
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & FILES.keys()
            found.update(inside or {node.module})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def part(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def layer(name):
    return next(i for i, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    own = layer(part(path))
    for module in imports(path):
        if module.startswith("bayesgmm.") and module != "bayesgmm.__version__":
            assert layer(module.split(".")[1]) >= own, f"{path.name} imports {module}"


def test_no_module_imports_itself_in_a_circle():
    """Not even within functions: what is needed by two is a third's."""
    graph = {name: imports(path) & FILES.keys() - {name} for name, path in FILES.items()}
    circles = []

    def visit(name, trail):
        if name in trail:
            circles.append(" -> ".join([*trail[trail.index(name) :], name]))
        elif name in unseen:
            unseen.discard(name)
            for other in graph[name]:
                visit(other, [*trail, name])

    unseen = set(FILES)
    for name in sorted(FILES):
        visit(name, [])
    assert not circles, circles


@pytest.mark.parametrize("path", [p for p in MODULES if part(p) in NUMPY_SIDE], ids=lambda p: str(p.relative_to(ROOT)))
def test_numpy_side_stays_light(path):
    for allowed, within_functions in ((set(), False), (IN_FUNCTIONS, True)):
        heavy = {module.split(".")[0] for module in imports(path, within_functions)} & HEAVY - allowed
        assert not heavy, f"{path.name} imports {heavy}"


def test_scikit_learn_is_imported_by_its_estimators_alone():
    for path in ROOT.rglob("*.py"):
        modules = imports(path)
        assert part(path) == "sklearn" or "sklearn" not in {module.split(".")[0] for module in modules}, path
        assert part(path) == "sklearn" or not any(m.startswith("bayesgmm.sklearn") for m in modules), path


def test_dask_is_imported_by_one_module_alone():
    for path in MODULES:
        found = {module.split(".")[0] for module in imports(path)} & {"dask", "distributed"}
        assert part(path) == "cluster" or not found, path


def test_importing_the_package_loads_neither_numba_nor_pymc():
    heavy = {"numba", "pymc", "scipy", "pandas", "matplotlib", "sklearn"}
    code = f"import sys, bayesgmm; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_drawing_from_the_posterior_loads_no_pymc():
    code = (
        "import sys, bayesgmm as bg; X = bg.datasets.old_faithful(); fit = bg.fit_em(X, 2, rng=0); "
        "bg.loo(bg.sample_posterior(X, fit, draws=200, rng=0)); print({'pymc', 'pytensor'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_every_public_name_is_there():
    for name in bayesgmm.__all__:
        assert getattr(bayesgmm, name) is not None


def test_type_checkers_may_use_the_annotations():
    """The marker of PEP 561: without it mypy takes everything imported from here for Any."""
    assert importlib.resources.files("bayesgmm").joinpath("py.typed").read_text() == ""
    settings = tomllib.loads((ROOT.parent / "pyproject.toml").read_text("utf-8"))
    assert "py.typed" in settings["tool"]["setuptools"]["package-data"]["bayesgmm"]  # wheels have it too
