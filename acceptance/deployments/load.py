"""Deployments from TOML files and command line to checked data; every refusal is an InputError."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from acceptance.deployments.schema import Deployment, Options
from acceptance.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic_core import ErrorDetails

SHIPPED = Path(__file__).parents[2] / "fixtures" / "deployments"


def load_deployments(extra: Sequence[Path] = ()) -> dict[str, Deployment]:
    """Shipped deployments and those of a site's folders or files, by name, shipped ones first.

    Raises InputError for a missing path, a folder without TOML files, unreadable or malformed
    files, keys nobody knows, values of another type, and a name used twice.
    """
    found: dict[str, Deployment] = {}
    files: dict[str, Path] = {}
    for folder in (SHIPPED, *extra):
        for file in _toml_files(folder):
            if file in files.values():
                continue
            deployment = read_deployment(file)
            if deployment.name in files:
                raise InputError(
                    f"two files name a deployment {deployment.name!r}",
                    asked=f"{files[deployment.name]} and {file}",
                    hint="give one of them another name; shipped ones cannot be replaced",
                )
            found[deployment.name] = deployment
            files[deployment.name] = file
    return found


def read_deployment(file: Path) -> Deployment:
    """The deployment in one TOML file. Raises InputError: file and key, or line of bad TOML."""
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:  # not only TOMLDecodeError: a number too long
        raise InputError(f"{file}: not valid TOML: {error}") from error
    try:
        return Deployment.model_validate(data)
    except ValidationError as error:
        lines = [_explain(detail) for detail in error.errors()]
        raise InputError(f"{file}: " + "; ".join(lines), asked="reading a deployment") from error


def with_options(deployment: Deployment, settings: Sequence[str]) -> Deployment:
    """The deployment with options replaced, each written NAME=VALUE; an empty VALUE leaves the
    option to vLLM. The last of several for one name holds. Raises InputError."""
    changed: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = (part.strip() for part in setting.partition("="))
        asked = f"--option {setting}"
        if not equals:
            raise InputError(f"{setting!r} is not NAME=VALUE", asked=asked)
        if name not in Options.model_fields:
            raise InputError(
                f"there is no option {name!r}{_nearest(name, Options.model_fields)}",
                asked=asked,
                hint="options: " + ", ".join(Options.model_fields),
            )
        try:
            parsed = Options.model_validate({name: value or None}, strict=False)
        except ValidationError as error:
            problem = "; ".join(detail["msg"] for detail in error.errors())
            raise InputError(f"option {name} = {value!r}: {problem}", asked=asked) from error
        changed[name] = getattr(parsed, name)
    data = deployment.model_dump()
    try:
        return Deployment.model_validate({**data, "options": {**data["options"], **changed}})
    except ValidationError as error:
        problem = "; ".join(_explain(detail) for detail in error.errors())
        raise InputError(
            f"{deployment.name}: {problem}",
            asked=" ".join(f"--option {setting}" for setting in settings),
        ) from error


def match(names: Iterable[str], globs: Sequence[str]) -> list[str]:
    """The names that any glob matches, in their own order; all of them without globs.

    Raises InputError for a glob that matches nothing, with the nearest names.
    """
    known = list(names)
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in known):
            raise InputError(
                f"no deployment matches {glob!r}{_nearest(glob, known)}",
                hint="deployments: " + (", ".join(known) or "none"),
            )
    return [name for name in known if not globs or any(fnmatchcase(name, g) for g in globs)]


def _toml_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path.resolve()]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or directory", asked="looking for deployments")
    files = sorted(file.resolve() for file in path.glob("*.toml"))
    if not files:
        raise InputError(f"{path}: holds no *.toml file", asked="looking for deployments")
    return files


def _explain(detail: ErrorDetails) -> str:
    """One problem: key, what is wrong with it, and the nearest key where nobody knows it."""
    path = [str(part) for part in detail["loc"]]
    key = ".".join(path)
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key {key!r}{_nearest(path[-1], _keys_beside(path))}"
        case "missing":
            return f"key {key!r} is missing"
        case "value_error":
            problem = detail["msg"].removeprefix("Value error, ")
            return f"{key}: {problem}" if key else problem
        case _:
            return f"{key} = {detail['input']!r}: {detail['msg']}"


def _keys_beside(path: Sequence[str]) -> list[str]:
    """Keys that are valid where the last of path stands."""
    model: type[BaseModel] = Deployment
    for part in path[:-1]:
        annotation = model.model_fields[part].annotation
        inner = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type)]
        model = next(a for a in inner if issubclass(a, BaseModel))
    return list(model.model_fields)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
