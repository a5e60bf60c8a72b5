"""A study as it is written, YAML or JSON, into a tree: a key that is given twice is a mistake."""

import json
from pathlib import Path
from typing import Any

import yaml

from jstar.errors import JstarError


class _Loader(yaml.SafeLoader):
    """Keeps the keys that a mapping repeats; YAML's own rule is that the last one wins."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The mapping, as it is written: merged keys (<<) are not in it yet."""
        node = super().compose_mapping_node(anchor)
        first: dict[Any, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in first and isinstance(key, yaml.ScalarNode):
                self.repeated.append(
                    f"the key '{key.value}' is given twice, at lines {first[key.value]} and {line}"
                )
            elif isinstance(key, yaml.ScalarNode):
                first[key.value] = line
        return node


def read_yaml(path: Path) -> Any:
    """The tree in a YAML file. Raises JstarError: one sentence naming file and line."""
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        tree = loader.get_single_data()
    except OSError as error:
        raise JstarError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # 2026-13-45 is a ValueError
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise JstarError(f"{path}: is not valid YAML{line}") from error
    if loader.repeated:
        raise JstarError(f"{path}: " + "; ".join(loader.repeated))
    return tree


def parse_json(text: str, origin: str) -> Any:
    """The tree in JSON text. Raises JstarError: one sentence that begins with `origin`."""
    repeated: list[str] = []

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        repeated.extend(f"the key '{key}' is given twice" for key in dict.fromkeys(keys)
                        if keys.count(key) > 1)  # fmt: skip
        return dict(pairs)

    try:
        tree = json.loads(text, object_pairs_hook=mapping)
    except (ValueError, RecursionError) as error:
        raise JstarError(f"{origin}: is not valid JSON ({error})") from error
    if repeated:
        raise JstarError(f"{origin}: " + "; ".join(repeated))
    return tree
