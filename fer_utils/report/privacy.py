"""Where files lie on the machine is not told in a run's report."""

import re
from pathlib import Path


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
