"""The version, which stands in pyproject.toml and nowhere else."""

from pathlib import Path

DISTRIBUTION = "pyreceptor"


def version() -> str:
    """This package's version.

    A source tree is asked before the installed metadata: those of an editable install date from the day of its
    installation, and the check against the library is there to notice exactly that.
    """
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    try:
        text = project.read_text(encoding="utf-8")
    except OSError:
        return _installed()
    import tomllib

    table = tomllib.loads(text).get("project", {})
    return str(table["version"]) if table.get("name") == DISTRIBUTION else _installed()


def _installed() -> str:
    from importlib import metadata

    return metadata.version(DISTRIBUTION)
