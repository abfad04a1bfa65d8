"""Write a bullwhip.toml that explains itself."""

import textwrap
from collections.abc import Mapping
from datetime import date
from typing import Any

from pipelines.settings import KEYS, Settings


def template(values: Mapping[str, Any] | None = None) -> str:
    """Return a bullwhip.toml that says in words what each key does; `values` are set, the rest shown as comments."""
    values = values or {}
    lines = ["# bullwhip: every key may be left out; what is commented shows the default."]
    for name in KEYS:
        field = Settings.model_fields[name]
        lines += ["", *textwrap.wrap(field.description or "", 100, initial_indent="# ", subsequent_indent="# ")]
        if name == "params":
            tables = values.get(name) or {"delay": {"num_leaves": 16}}
            made = [
                line
                for task, given in tables.items()
                for line in (f"[params.{task}]", *(f"{k} = {v}" for k, v in given.items()))
            ]
            lines += [line if name in values else f"# {line}" for line in made]
        elif name == "capacity":
            rows = values.get(name, field.default)
            lines += [
                ("" if name in values else "# ") + line
                for line in ("[capacity]", *(f"{k} = {v}" for k, v in rows.items()))
            ]
        else:
            default = date(2026, 1, 5) if name == "as_of" else field.default
            lines.append(f"{name} = {_toml(values[name])}" if name in values else f"# {name} = {_toml(default)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date) else str(value)
