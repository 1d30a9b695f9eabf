"""``config.yaml`` and the notebooks' parameters, checked whole before anything starts."""

import ast
import contextlib
import functools
import json
import math
import re

import yaml

from fer_utils.errors import ConfigError
from fer_utils.paths import project_root
from fer_utils.words import PROTOCOLS

#: Parameters that options of the command set.
RESERVED = dict.fromkeys(("model", "label", "notebook"), "--models") | {
    name: f"--{option}"
    for name, option in (("seed", "seeds"), ("data", "data"), ("out", "out"), ("profile", "profile"))
}

#: What parameters of these names may be, as JSON schemas; 0 images or threads are all that there are.
LIMITS = {
    **dict.fromkeys(("epochs", "batch_size"), {"minimum": 1}),
    **dict.fromkeys(("images_per_class", "test_images_per_class", "epoch_images_per_class", "threads"), {"minimum": 0}),
    "learning_rate": {"exclusiveMinimum": 0},
    "dropout": {"minimum": 0, "exclusiveMaximum": 1},
    "plateau_factor": {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "protocol": {"enum": list(PROTOCOLS)},
    "precision": {"enum": ["auto", "float32", "mixed_bfloat16", "mixed_float16"]},
}

JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Loader(yaml.SafeLoader):
    """YAML in which no name stands twice: the first entry would be lost without a word."""

    def construct_mapping(self, node, deep=False):
        """Build a dict, or say which name stands twice, and where."""
        names = []  # of any kind; what cannot be a name is refused below
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if name in names:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} stands twice", key.start_mark)
            names.append(name)
        return super().construct_mapping(node, deep)


def strict(required, **properties):
    """Return the JSON schema of an object with these properties and no others."""
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def named(schema):
    """Return the JSON schema of an object with freely named entries. The names become names of folders."""
    return {"type": "object", "propertyNames": {"pattern": "^[A-Za-z0-9_]+$"}, "additionalProperties": schema}


TEXT, OBJECT = {"type": "string"}, {"type": "object"}
MODEL = strict(
    ["label", "notebook"], label=TEXT, notebook=TEXT, parameters=OBJECT, cost={"type": "number", "minimum": 0}
)
PROFILE = strict(["about", "parameters"], about=TEXT, parameters=OBJECT, models=named(OBJECT))
STRUCTURE = strict(
    ["profiles", "default_models", "models"],
    profiles=named(PROFILE),
    default_models={"type": "array", "items": TEXT, "minItems": 1},
    models=named(MODEL),
)


def mistakes(schema, value, place=""):
    """Return one line for each entry that a JSON schema refuses: the entry, its value and what was expected."""
    # Half a second to import, and `--help` needs none of it.
    from jsonschema import Draft202012Validator

    found = {}
    for error in sorted(Draft202012Validator(schema).iter_errors(value), key=lambda error: list(map(str, error.path))):
        text = error.message[:300]
        if error.validator == "additionalProperties":
            text += f"; known: {', '.join(sorted(error.schema['properties']))}"
        elif error.validator == "type" and re.fullmatch(r"[-+]?\d+(\.\d*)?e[-+]?\d+", str(error.instance), re.I):
            text += f"; YAML takes it for text, write {float(error.instance):g}"
        found[f"{place}{'.'.join(map(str, error.path)) or 'the file'}: {text}"] = None
    return list(found)


def read_config():
    """Read and check ``config.yaml``; ConfigError with one line per mistake."""
    path = project_root() / "config.yaml"
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if found := mistakes(STRUCTURE, config) or same_labels(config) or mistakes(contents(config), config):
        raise ConfigError("\n  ".join([f"{path}:", *found]))
    return config


def same_labels(config):
    """Return one line for each model that has the label of another one: a table would take the two for one."""
    seen = {}
    return [
        f"models.{model}.label: {entry['label']!r} is the label of {seen[entry['label']]} already; give it another one"
        for model, entry in config["models"].items()
        if seen.setdefault(entry["label"], model) != model
    ]


def contents(config):
    """Return the JSON schema of the names and parameters in a configuration, from the notebooks that it names."""
    models = {model: parameter_schema(entry["notebook"]) for model, entry in config["models"].items()}
    profile = {
        "parameters": {"allOf": list(models.values())},
        "models": {"properties": models, "additionalProperties": False},
    }
    return {
        "properties": {
            "default_models": {"items": {"enum": list(models)}},
            "models": {"properties": {model: {"properties": {"parameters": s}} for model, s in models.items()}},
            "profiles": {"additionalProperties": {"properties": profile}},
        }
    }


def parameter_schema(notebook):
    """Return the JSON schema of a notebook's parameters, but for those that options of the command set."""
    try:
        defaults = notebook_parameters(notebook)
    except ConfigError:
        if (project_root() / "notebooks" / notebook).is_file():
            return {}  # broken: an error of the run that needs it
        raise
    types = {name: {"type": JSON_TYPES[type(value)]} for name, value in defaults.items() if name not in RESERVED}
    return strict([], **{name: kind | LIMITS.get(name, {}) for name, kind in types.items()})


@functools.cache
def notebook_parameters(notebook):
    """Return the parameters of a notebook below ``notebooks/``, name to default value; ConfigError if it has none."""
    # A second to import.
    from papermill.inspection import inspect_notebook

    path = project_root() / "notebooks" / notebook
    if not path.is_file():
        raise ConfigError(f"config.yaml names the notebook {notebook}, and there is no {path}")
    check_notebook(path)
    try:
        found = inspect_notebook(path)
    except Exception as error:
        raise ConfigError(f"{notebook} cannot be read as a notebook: {' '.join(str(error).split())[:200]}") from None
    if not found:
        raise ConfigError(f"{notebook}: no cell is tagged 'parameters'; copy that of another model's notebook")
    values = {}
    for name, entry in found.items():
        with contextlib.suppress(ValueError, SyntaxError):
            values[name] = ast.literal_eval(entry["default"])
        if type(values.get(name)) not in JSON_TYPES:
            said = f"{notebook}: the default of the parameter {name} is {entry['default']}"
            raise ConfigError(f"{said}; expected a number, a text in quotes, True or False")
    return values


def check_notebook(path):
    """Raise a ConfigError that says what to do if a file is no notebook, or one with a merge unfinished."""
    try:
        text = path.read_bytes().decode(errors="replace")
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {error.strerror}; check its permissions") from None
    flaw = ""
    try:
        version = json.loads(text)["nbformat"]
        if version != 4:
            flaw = f"a notebook of format {version}, expected 4; open and save it in JupyterLab, which converts it"
    except ValueError as error:
        flaw = f"no notebook: {f'not JSON ({error})' if text.strip() else 'an empty file'}; restore it"
    except (KeyError, TypeError):
        flaw = "no notebook, though it is JSON; restore it"
    # Also inside a cell, where they leave JSON as it was.
    if found := re.search(r'^\s*"?[<>]{7}( |\\n|$)', text, re.MULTILINE):
        flaw = f"merge markers, the first in line {text.count(chr(10), 0, found.start()) + 1}; resolve the conflict"
    if flaw:
        raise ConfigError(f"{path.name}: {flaw}")


def resolve_parameters(config, profile, model, settings=()):
    """Return the parameters of one model: the notebook's, the profile's, the model's and ``--set``; the last wins.

    `settings` come from `read_settings`; those that the notebook does not have are left out.
    """
    entry, chosen = config["models"][model], config["profiles"][profile]
    defaults = notebook_parameters(entry["notebook"])
    given = {name: typed(text, type(defaults[name])) for name, text in dict(settings).items() if name in defaults}
    if found := mistakes(parameter_schema(entry["notebook"]), given, "--set "):
        raise ConfigError("\n  ".join(found))
    own = {"model": model, "label": entry["label"], "notebook": entry["notebook"], "profile": profile}
    changes = chosen["parameters"] | entry.get("parameters", {}) | chosen.get("models", {}).get(model, {}) | given
    return defaults | {name: type(defaults[name])(value) for name, value in changes.items()} | own


def typed(text, kind):
    """Read the text of ``--set`` as a type; what cannot be read stays text, and is refused as such."""
    try:
        value = WORDS.get(text.lower(), text) if kind is bool else kind(text)
    except ValueError:
        return text
    return text if value in (math.inf, -math.inf) or value != value else value


def read_settings(pairs, notebooks):
    """Split what ``--set`` gave into names and texts; ConfigError for a name that no notebook of the run has."""
    known = sorted({name for notebook in notebooks for name in notebook_parameters(notebook)} - set(RESERVED))
    settings = {}
    for pair in pairs:
        name, equals, settings[name] = pair.partition("=")
        if name in RESERVED:
            raise ConfigError(f"--set {name}: use {RESERVED[name]} for that")
        if not equals or name not in known:
            raise ConfigError(f"--set {pair}: expected NAME=VALUE with one of these names: {', '.join(known)}")
    return settings


def choose_models(config, names):
    """Return the names of the models that ``--models`` asks for; ConfigError if one is not configured."""
    if names is None:
        return config["default_models"]
    chosen = list(config["models"]) if names == "all" else list(dict.fromkeys(filter(None, names.split(","))))
    unknown = [name for name in chosen if name not in config["models"]]
    if unknown or not chosen:
        said = ", ".join(unknown) or "choice"
        raise ConfigError(f"--models {names}: unknown {said}; config.yaml has {', '.join(config['models'])}")
    return chosen
