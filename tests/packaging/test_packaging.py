"""What is in the wheel and in the source distribution, and what a build says when it cannot go on."""

import importlib.util
import operator
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from building import ROOT, commands

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SIZE_BUDGET_BYTES = 10_000_000
MODULE_AND_FOLDER = "{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Dir}}{{end}}{{end}}"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(os.environ.get("RECEPTOR_GO") or "go") is None, reason="needs Go"),
    pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="needs setuptools"),
]


def build(hook: str, source: Path, target: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a hook of the build backend as an installer would, in a copy of the sources."""
    program = f"from setuptools import build_meta; print(build_meta.{hook}({str(target)!r}))"
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=source,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1760000000", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def copy_sources(target: Path) -> Path:
    """A copy of what git would give a newcomer, near enough."""
    target.mkdir()
    for name in ("go", "capi", "python"):
        shutil.copytree(
            ROOT / name,
            target / name,
            ignore=shutil.ignore_patterns("__pycache__", "_native", "*.egg-info", "testdata"),
        )
    for path in ROOT.iterdir():
        if path.is_file() and path.name in ("pyproject.toml", "go.mod", "go.sum", "README.md", "LICENSE"):
            shutil.copy(path, target)
    (target / "tests").mkdir()
    shutil.copy(__file__, target / "tests")
    return target


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = copy_sources(tmp_path_factory.mktemp("sdist") / "source")
    done = build("build_sdist", source, source.parent)
    assert done.returncode == 0, done.stderr
    return source.parent / f"pyreceptor-{VERSION}.tar.gz"


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that was built from the source distribution, and so from nothing else."""
    directory = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(directory, filter="data")
    done = build("build_wheel", directory / f"pyreceptor-{VERSION}", directory)
    assert done.returncode == 0, done.stderr
    (found,) = directory.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


def test_the_source_distribution_builds_without_the_repository(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"go.mod", "go.sum", "capi/receptor.h", "capi/main.go", "python/build/commands.py"} <= names
    assert {"python/build/symver.h", "go/cmd/receptor/main.go", "python/receptor/py.typed"} <= names
    assert not [name for name in names if "_native" in name or name.endswith((".so", ".pyc", "_test.go"))]
    assert not [name for name in names if name.startswith("tests")]  # Some of them, without what they need.


def test_the_wheel_holds_the_packages_the_library_and_the_daemon(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {info.filename: info for info in archive.infolist()}
    daemon = files[f"pyreceptor-{VERSION}.data/scripts/receptor"]
    assert (daemon.external_attr >> 16) & stat.S_IXUSR
    expected = {"receptor/__init__.py", "receptor/py.typed", "receptor/_native/libreceptor.so", "receptorctl/cli.py"}
    assert expected <= set(files)
    top = {name.split("/")[0] for name in files}
    assert top == {"receptor", "receptorctl", f"pyreceptor-{VERSION}.data", f"pyreceptor-{VERSION}.dist-info"}
    assert not [name for name in files if name.endswith((".h", ".go", ".new")) or "/build/" in name]
    assert wheel.stat().st_size < SIZE_BUDGET_BYTES


def test_the_wheel_names_its_licences(unpacked: Path) -> None:
    """Its own, and those of all that is compiled into it."""
    about = unpacked / f"pyreceptor-{VERSION}.dist-info"
    assert "\nLicense-Expression: Apache-2.0\n" in (about / "METADATA").read_text()
    assert (about / "licenses" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    told = (about / "licenses" / "python" / "THIRD-PARTY-LICENSES").read_text()
    build = commands()
    listing = subprocess.run(
        [build.find_go(), "list", "-deps", "-tags", build.TAGS, "-f", MODULE_AND_FOLDER, "./go/cmd/receptor", "./capi"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    modules = dict(line.split("\t") for line in listing.splitlines() if line)
    assert "github.com/quic-go/quic-go" in modules
    for module, folder in modules.items():
        assert f"\n{module}\n" in told
        for text in Path(folder).glob("LICENSE*"):
            assert text.read_text().strip("\n") in told, f"{module}: copy {text} into python/THIRD-PARTY-LICENSES"


def test_members_are_as_small_as_their_format_allows(tmp_path: Path) -> None:
    """Packed again, a wheel says the same and is smaller: nothing but this tells if zipfile stops being told how."""
    deflate = pytest.importorskip("deflate")
    sources = sorted((ROOT / "python" / "receptor").glob("*.py"))
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sources:
            archive.write(path, path.name)
        archive.writestr("empty", b"")
    with zipfile.ZipFile(wheel) as archive:
        before = archive.infolist()
    commands()._compress(wheel)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        after = archive.infolist()
        for path in sources:
            data = path.read_bytes()
            assert archive.read(path.name) == data
            assert archive.getinfo(path.name).compress_size == len(deflate.deflate_compress(data, 12)), path.name
    about = operator.attrgetter("filename", "date_time", "external_attr")
    assert [about(entry) for entry in after] == [about(entry) for entry in before]
    assert sum(entry.compress_size for entry in after) < sum(entry.compress_size for entry in before)


def test_the_tag_says_what_the_library_needs(wheel: Path, unpacked: Path) -> None:
    library = unpacked / "receptor/_native/libreceptor.so"
    metadata = (unpacked / f"pyreceptor-{VERSION}.dist-info" / "WHEEL").read_text()
    python, abi, plat = wheel.stem.split("-")[-3:]
    assert (python, abi) == ("py3", "none")
    assert "Root-Is-Purelib: false" in metadata
    assert f"Tag: py3-none-{plat}" in metadata
    if platform.libc_ver()[0] != "glibc" or shutil.which("objdump") is None:
        pytest.skip("needs glibc and objdump")
    found = re.fullmatch(rf"manylinux_(\d+)_(\d+)_{platform.machine()}", plat)
    assert found is not None
    assert commands().min_glibc(library) <= (int(found.group(1)), int(found.group(2)))
    listing = subprocess.run(["objdump", "-p", library], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"NEEDED\s+(\S+)", listing)) <= {"libc.so.6", "libpthread.so.0"}
    if platform.machine() == "x86_64":
        assert plat == "manylinux_2_17_x86_64"


def test_the_three_versions_are_one(unpacked: Path) -> None:
    daemon = unpacked / f"pyreceptor-{VERSION}.data/scripts/receptor"
    daemon.chmod(0o755)
    said = subprocess.run([daemon, "--version"], capture_output=True, text=True, check=True).stdout
    assert said == f"{VERSION}\n"
    program = (
        "import ctypes, json, sys; library = ctypes.CDLL(sys.argv[1])\n"
        "library.receptor_build_info.restype = ctypes.c_char_p\n"
        "print(json.loads(library.receptor_build_info())['version'])"
    )
    library = unpacked / "receptor/_native/libreceptor.so"
    said = subprocess.run([sys.executable, "-c", program, library], capture_output=True, text=True, check=True).stdout
    assert said == f"{VERSION}\n"
    metadata = (unpacked / f"pyreceptor-{VERSION}.dist-info" / "METADATA").read_text()
    assert f"\nVersion: {VERSION}\n" in metadata


def test_the_daemon_is_static(unpacked: Path) -> None:
    if shutil.which("objdump") is None:
        pytest.skip("needs objdump")
    daemon = unpacked / f"pyreceptor-{VERSION}.data/scripts/receptor"
    listing = subprocess.run(["objdump", "-p", daemon], capture_output=True, text=True, check=True).stdout
    assert "NEEDED" not in listing


def test_the_library_runs_from_the_unpacked_wheel(unpacked: Path) -> None:
    program = "import receptor\nwith receptor.Node('a') as node: print(node.status().node, receptor.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        cwd=unpacked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"a {unpacked}/receptor/__init__.py\n", done.stderr


def test_builds_in_two_places_are_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    done = build("build_wheel", copy_sources(tmp_path / "elsewhere"), tmp_path)
    assert done.returncode == 0, done.stderr
    (second,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(second) as two:
        assert sorted(one.namelist()) == sorted(two.namelist())
        different = [name for name in one.namelist() if one.read(name) != two.read(name)]
    assert different == []


def test_without_the_library_nodes_are_sidecars(tmp_path: Path) -> None:
    """What musl and foreign systems get: the static daemon, and the same Python."""
    source = copy_sources(tmp_path / "source")
    done = build("build_wheel", source, tmp_path, RECEPTOR_LIBRARY="no", CC="no-such-cc")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith(f"-manylinux_2_17_{platform.machine()}.musllinux_1_1_{platform.machine()}.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if "_native" in name]
        archive.extractall(tmp_path / "unpacked")
    daemon = tmp_path / "unpacked" / f"pyreceptor-{VERSION}.data/scripts/receptor"
    daemon.chmod(0o755)
    program = "import receptor\nwith receptor.Node('a') as node: print(node.mode, node.status().node)"
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "unpacked"), "RECEPTOR_DAEMON": str(daemon)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "sidecar a\n", done.stderr


def test_other_systems_are_refused_before_anything_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    build = commands()
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(SystemExit, match="Linux is needed, and this is darwin"):
        build.find_go()


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        (
            {"RECEPTOR_GO": "no-such-go"},
            r"Go is missing \(no-such-go not found\): install Go 1\.\d+\S* or newer, .*RECEPTOR_GO",
        ),
        ({"RECEPTOR_GO": "old-go"}, r"old-go is go1\.20\.3, and Go 1\.\d+\S* or newer is needed: set RECEPTOR_GO"),
        ({"CC": "no-such-cc -m64"}, r"no C compiler \(no-such-cc -m64 not found\): .*install gcc"),
    ],
)
def test_what_is_missing_is_said_in_one_line(tmp_path: Path, environ: dict[str, str], text: str) -> None:
    old = program(tmp_path / "old-go", "echo go1.20.3")
    environ = {name: str(old) if value == "old-go" else value for name, value in environ.items()}
    source = copy_sources(tmp_path / "source")
    done = build("build_wheel", source, tmp_path, **environ)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(text, last), done.stderr
    assert "Traceback" not in done.stderr
