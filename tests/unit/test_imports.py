"""Which package may import which (arrows point down), and which of their files users may import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dspex

ROOT = Path(dspex.__file__).parent
LEAVES = {
    "_core",
    "errors",
    "error_codes",
    "prediction",
    "events",
    "callbacks",
    "dialects",
    "metrics",
    "telemetry",
    "streaming",
}
# A root module with an underscore is a leaf too. `protocol` and `worker` are inner packages, as `_engine` is.
MAY_IMPORT = {
    **dict.fromkeys(sorted(LEAVES - {"_core"}), ""),
    "signature": "",
    "template": "signature _engine",
    "_engine": "signature",
    "wire": "",
    "protocol": "signature _engine wire",
    "lm": "protocol _engine",
    "adapters": "signature _engine lm",
    "dspy": "signature _engine lm protocol",
    "pool": "protocol signature wire",
    "worker": "protocol signature _engine wire",
    "router": "signature adapters lm protocol",
    "modules": "router signature adapters lm protocol wire",
    "compiled": "modules signature adapters protocol",
    "stores": "wire",
    "sessions": "pool protocol stores wire",
    "pipelines": "modules router signature template stores wire",
    "runtime": "router signature adapters _engine lm pool protocol sessions stores",
    "testing": "lm router stores",
    "cli": "signature adapters _engine lm modules compiled runtime pool protocol sessions stores testing",
}
PUBLIC_FILES = {"pool/ray.py"}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_is_below_it(package: str) -> None:
    files = [*(ROOT / package).rglob("*.py"), *ROOT.glob(f"{package}.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = {name.split(".")[1] for name in names if name.startswith("dspex.")}
    packages = {part for part in parts if part in MAY_IMPORT}
    assert packages - LEAVES - {package} <= set(MAY_IMPORT[package].split())


def test_files_that_users_do_not_import_have_an_underscore() -> None:
    inner = {"_engine", "protocol", "worker", "_backends", "_http"}
    files = [file.relative_to(ROOT) for file in ROOT.glob("*/**/*.py") if file.name[0] != "_"]
    assert {str(file) for file in files if not inner & set(file.parts)} <= PUBLIC_FILES
