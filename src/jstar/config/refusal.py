"""Pydantic's complaints in the words of a study file."""

from typing import Any

from pydantic import BaseModel, ValidationError

from jstar.errors import nearest


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
    """The first problem of a study file as one sentence: key, value found, what is allowed.

    model: the class that refused the input.
    """
    first = error.errors()[0]
    location = first["loc"]
    key = ".".join(f"[{w}]" if isinstance(w, int) else str(w) for w in location).replace(".[", "[")
    kind, context, found = first["type"], first.get("ctx", {}), first["input"]
    if kind == "extra_forbidden":
        allowed = _field_names(model, location)
        return (
            f"the key '{key}' is unknown{nearest(str(location[-1]), allowed)}"
            f" (allowed here: {', '.join(allowed)})"
        )
    if kind == "missing":
        return f"the key '{key}' is missing"
    reason = str(context.get("error", first["msg"][:1].lower() + first["msg"][1:]))
    if isinstance(found, dict | list | BaseModel) and kind == "value_error":
        return f"{key}: {reason}" if key else reason
    return f"{key} = {found!r} is not allowed: {reason}"
