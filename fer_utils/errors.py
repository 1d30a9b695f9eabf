"""Errors that name the file, what was found, what was expected and what to do; and no secrets in their text."""

import json
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|PWD|CREDENTIAL|AUTH|KAGGLE_USERNAME", re.IGNORECASE)

#: Shorter values are part of too many words by chance.
SHORTEST = 6


class FerError(Exception):
    """Base of every error that this package raises on purpose."""

    def _render_traceback_(self):
        """Show the message alone in a notebook: it says what to do, and where our code found it is no help."""
        return [f"{type(self).__name__}: {self}"]


class DataError(FerError):
    """A dataset that is missing, incomplete, malformed or not what it claims to be."""


class ConfigError(FerError):
    """A profile, model, parameter or command-line option that does not exist or does not fit."""


class ResultsError(FerError):
    """A run folder that is missing or lacks files."""


class TrainingError(FerError):
    """A training that cannot go on."""


def secrets():
    """Return the secrets that this process could know of: environment, proxies, Kaggle's files; longest first."""
    found = {value for name, value in os.environ.items() if SECRET_NAME.search(name) and not value.startswith("/")}
    for name, value in os.environ.items():
        if name.lower().endswith("_proxy") and "@" in value:
            login = urlsplit(value).netloc.rpartition("@")[0]
            found |= {login, *login.split(":", 1), *map(unquote, login.split(":", 1))}
    folders = filter(None, [os.environ.get("KAGGLE_CONFIG_DIR"), "~/.kaggle", "~/.config/kaggle"])
    for path in [Path(folder) / name for folder in folders for name in ("kaggle.json", "access_token")]:
        try:
            text = path.expanduser().read_text(encoding="utf-8")
        except (OSError, ValueError, RuntimeError):
            continue
        try:
            found |= {str(value) for value in json.loads(text).values()}
        except (ValueError, AttributeError):
            found.add(text.strip())
    return sorted((value for value in found if len(value) >= SHORTEST), key=len, reverse=True)


def redact(text):
    """Return a text with ``***`` for secrets: known ones, logins and queries in addresses, authorization headers.

    What other programs print when they fail (Kaggle's client, a download, a proxy) may hold credentials. It passes
    here before it becomes part of a message, a log or a record.
    """
    for secret in secrets():
        text = text.replace(secret, "***")
    text = re.sub(r"(\w://)[^/\s'\"]*@", r"\1***@", text)
    text = re.sub(r"(https?://[^\s?'\"]+\?)[^\s'\"]+", r"\1***", text)
    header = r"(?i)authorization\W+(?:(?:basic|bearer|token)\s+)?[^\s'\"]+|\bbearer\s+[\w.~+/=-]{8,}"
    return re.sub(header, "***", text)
