"""Builds of the Go parts that only tests want."""

import importlib.util
import os
import shutil
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def commands() -> ModuleType:
    """The module with the build commands."""
    spec = importlib.util.spec_from_file_location("receptor_build_commands", ROOT / "python" / "build" / "commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import setuptools  # noqa: F401  # makes "distutils" importable

    spec.loader.exec_module(module)
    return module


def package_with_library(folder: Path, **environ: str) -> Path:
    """Copy the package into ``folder`` and build a library into it, with ``environ`` for the Go command."""
    shutil.copytree(ROOT / "python" / "receptor", folder / "receptor", ignore=shutil.ignore_patterns("_native"))
    (folder / "pyreceptor-0.dist-info").mkdir()
    (folder / "pyreceptor-0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: pyreceptor\nVersion: 0\n")
    before = dict(os.environ)
    os.environ.update(environ)
    try:
        commands().build_library(folder / "receptor" / "_native" / "libreceptor.so", "0")
    finally:
        os.environ.clear()
        os.environ.update(before)
    return folder
