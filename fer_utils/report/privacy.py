"""What a run's files do not tell: secrets, and where files lie on the machine.

What other programs print when they fail (Kaggle's client, a download, a proxy) may hold credentials. It passes
`redact` before it becomes part of a message, a log or a record.
"""

import json
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|PWD|CREDENTIAL|AUTH|KAGGLE_USERNAME", re.IGNORECASE)

#: Values shorter than this are no secret worth the name, and stand in too many words by chance.
SHORTEST = 6


def kaggle_files():
    """Return where Kaggle's client keeps credentials, as it looks for them itself."""
    folders = [os.environ.get("KAGGLE_CONFIG_DIR"), "~/.kaggle", "~/.config/kaggle"]
    return [
        Path(folder).expanduser() / name for folder in folders if folder for name in ("kaggle.json", "access_token")
    ]


def secrets():
    """Return the secrets that this process could know of: environment, proxies, Kaggle's files; longest first."""
    found = {value for name, value in os.environ.items() if SECRET_NAME.search(name) and not value.startswith("/")}
    for name, value in os.environ.items():
        if name.lower().endswith("_proxy") and "@" in value:
            login = urlsplit(value).netloc.rpartition("@")[0]
            found |= {login, *login.split(":", 1), *map(unquote, login.split(":", 1))}
    for path in kaggle_files():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError, RuntimeError):
            continue
        try:
            found |= {str(value) for value in json.loads(text).values()}
        except (ValueError, AttributeError):
            found.add(text.strip())
    return sorted((value for value in found if len(value) >= SHORTEST), key=len, reverse=True)


def redact(text):
    """Return a text without secrets: known ones, logins and queries in addresses, authorization headers.

    Parameters
    ----------
    text : str
        What another program said.

    Returns
    -------
    str
        With ``***`` where a secret was.
    """
    for secret in secrets():
        text = text.replace(secret, "***")
    text = re.sub(r"(\w://)[^/\s'\"]*@", r"\1***@", text)
    text = re.sub(r"(https?://[^\s?'\"]+\?)[^\s'\"]+", r"\1***", text)
    header = r"(?i)authorization\W+(?:(?:basic|bearer|token)\s+)?[^\s'\"]+|\bbearer\s+[\w.~+/=-]{8,}"
    return re.sub(header, "***", text)


class HiddenFolders:
    """Shortens paths in what is shown to others: whose machine it was, and where on it, is nobody's business.

    Parameters
    ----------
    folders : dict of path to str
        Folder to what stands for it; ``""`` for a folder that is left out.
    """

    def __init__(self, folders):
        self.names = {}
        for folder, name in folders.items():
            path = Path(folder)
            forms = [str(form) for form in (path, path.resolve()) if len(form.parts) > 1]
            # papermill writes "\\xfc" for "ü" into the cell of the parameters.
            self.names |= dict.fromkeys([*forms, *(form.encode("unicode_escape").decode() for form in forms)], name)
        known = "|".join(map(re.escape, sorted(self.names, key=len, reverse=True))) or "(?!)"
        # A folder ends at a slash or where its name can't go on.
        self.pattern = re.compile(rf"(?<![\w.~-])({known})(?:(/)|(?![\w.-]))")

    def shorten(self, text):
        """Return a text with the folders replaced."""
        return self.pattern.sub(self._name, text)

    def _name(self, match):
        name = self.names[match[1]]
        return (f"{name}/" if name else "") if match[2] else name or "."
