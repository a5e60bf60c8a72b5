"""Pydantic's complaints in the words of a study file: all of them, in one sentence."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from jstar.errors import closest, nearest


class FaultsError(ValueError):
    """What a validator found wrong, each fault by itself."""

    def __init__(self, each: Iterable[str]) -> None:
        self.each = tuple(each)
        super().__init__("; ".join(self.each))


def refuse(faults: Iterable[str]) -> None:
    """Raise `FaultsError`, if there are any."""
    if each := tuple(faults):
        raise FaultsError(each)


def _field_names(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Names allowed beside the last word of an error's location."""
    part: Any = model
    for word in location[:-1]:
        if isinstance(word, int):
            continue
        annotation = part.model_fields[word].annotation
        while not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            annotation = annotation.__args__[0]
        part = annotation
    return list(part.model_fields)


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """All problems of a study file as one sentence: key, value found, what is allowed.

    Unknown keys come first: one of them may be the missing one, and is then told only once.
    model: the class that refused the input.
    """
    unknown = [e for e in error.errors() if e["type"] == "extra_forbidden"]
    meant = set()
    for found in unknown:
        location = found["loc"]
        meant.add((*location[:-1], closest(str(location[-1]), _field_names(model, location))))
    rest = [
        e
        for e in error.errors()
        if e not in unknown and not (e["type"] == "missing" and e["loc"] in meant)
    ]
    each = [fault for found in [*unknown, *rest] for fault in _faults(dict(found), model)]
    return each[0] if len(each) == 1 else f"{len(each)} faults: " + "; ".join(each)


def _faults(error: dict[str, Any], model: type[BaseModel]) -> list[str]:
    location = error["loc"]
    key = ".".join(f"[{w}]" if isinstance(w, int) else str(w) for w in location).replace(".[", "[")
    kind, found, cause = error["type"], error["input"], error.get("ctx", {}).get("error")
    if kind == "extra_forbidden":
        allowed = _field_names(model, location)
        return [
            f"the key '{key}' is unknown{nearest(str(location[-1]), allowed)}"
            f" (allowed here: {', '.join(allowed)})"
        ]
    if kind == "missing":
        return [f"the key '{key}' is missing"]
    reasons = cause.each if isinstance(cause, FaultsError) else [str(cause or _lower(error["msg"]))]
    if isinstance(found, dict | list | BaseModel) and kind == "value_error":
        return [f"{key}: {reason}" if key else reason for reason in reasons]
    return [f"{key} = {found!r} is not allowed: {reason}" for reason in reasons]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
