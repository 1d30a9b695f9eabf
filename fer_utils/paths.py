"""Where the project lies, so that a notebook works from its own folder and from the project's root alike."""

from pathlib import Path


def project_root() -> Path:
    """Return the folder that holds ``pyproject.toml``, ``notebooks/`` and this package.

    The package is installed in editable mode, so its own place tells, whatever the working directory is.
    """
    return Path(__file__).resolve().parent.parent


def resolve(path: str | Path) -> Path:
    """Return ``path`` as an absolute path; a relative one counts from the project's root.

    Parameters
    ----------
    path : str or Path
        ``~`` stands for the home folder.
    """
    path = Path(path).expanduser()
    return path if path.is_absolute() else project_root() / path
