"""The version, which stands in pyproject.toml and nowhere else."""

import os

DISTRIBUTION = "pyreceptor"

_PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def version() -> str:
    """This package's version.

    A source tree is asked before the installed metadata: those of an editable install date from the day of its
    installation, and the check against the library is there to notice exactly that.
    """
    try:
        with open(os.path.join(os.path.dirname(_PACKAGES), "pyproject.toml"), encoding="utf-8") as project:
            text = project.read()
    except OSError:
        return _installed()
    import tomllib

    table = tomllib.loads(text).get("project", {})
    return str(table["version"]) if table.get("name") == DISTRIBUTION else _installed()


def _installed() -> str:
    """What the metadata beside the package say; importing ``importlib.metadata`` would take longer than all else."""
    try:
        names = os.listdir(_PACKAGES)
    except OSError:
        names = []  # The package is in an archive, as in a zipapp.
    found = [name for name in names if name.startswith(f"{DISTRIBUTION}-") and name.endswith("-info")]
    if len(found) == 1:
        try:
            with open(os.path.join(_PACKAGES, found[0], "METADATA"), encoding="utf-8") as metadata:
                for line in metadata:
                    if line.startswith("Version: "):
                        return line.removeprefix("Version: ").strip()
        except OSError:
            pass  # Not what pip makes.
    from importlib import metadata as finder

    try:
        return finder.version(DISTRIBUTION)
    except finder.PackageNotFoundError:
        from .errors import NativeLibraryError

        raise NativeLibraryError(
            f"{_PACKAGES} has no {DISTRIBUTION}-*.dist-info, which says what version this package is: install the "
            f"wheel with pip, or copy that folder with the package (PyInstaller: --copy-metadata {DISTRIBUTION})"
        ) from None
