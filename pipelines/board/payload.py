"""Hand the rows to the page's script: column by column, every text once, safe inside HTML."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from models.watchlist import LEVELS
from pipelines.board.rows import TODO, WHY

MARKS = "".join(chr(c) for c in range(33, 127) if chr(c) not in "\"&'<>\\") + "".join(map(chr, range(192, 205)))
"""One character per whole number from 0 to 100: short, and nothing that JSON or HTML would escape."""
KINDS = ("late", "overdue", "surge", "drop")
NUMBERS = ("p", "p_before", "of", "when", "low", "mid", "high", "usual", "evidence_n")
FLOORS = tuple((word, round(10_000 * floor)) for floor, word in LEVELS)
THINGS = {"supplier": "supplier_id", "product": "product_id", "site": "site_id"}


def payload(rows: pd.DataFrame, history: np.ndarray, facts: Mapping[str, Any]) -> str:
    """Return one JSON document; `facts` are what else the script needs, rows come as `columns` of `n` values.

    Whole numbers stay what board_rows made them, but `value` holds drops from the row before and `days` how long after
    `when` a window ends. A text is its place in `texts`, a supplier, product or site its place in a list of [id, name];
    reasons end where no row has any; what to do, and how far a series has moved, is told per row that has it. A column
    of small places is one text of MARKS, and so are the curves, a mark per week and a blank for a week without the row.
    """
    columns: dict[str, list[Any] | str] = {"row_id": _row_ids(rows)}
    pools: dict[str, Any] = {}
    texts: dict[str, int] = {}
    if len(rows):
        columns |= {name: _numbers(rows[name]) for name in NUMBERS}
        columns |= {"value": _drops(rows["value"]), "days": _short((rows["till"] - rows["when"]).fillna(0).tolist())}
        columns |= {"kind": _short(_places(rows["kind"], KINDS)), "window": _short((rows["window"] + 1).tolist())}
        for name, key in THINGS.items():
            places, pools[name] = _things(rows[key], rows[name])
            columns[name] = _short(places)
        columns |= {name: _trimmed(_texts(rows[name], texts)) for name in WHY}
        columns |= {"published_by": _short(_texts(rows["published_by"], texts)), "history": _curves(history)}
    todo = rows[rows["owner"].notna()]
    moved = {int(str(k)): int(v) for k, v in rows["moved"].dropna().items()} if len(rows) else {}
    listed = {int(str(k)): _todo(row) for k, row in zip(todo.index, todo[list(TODO)].to_dict("records"), strict=True)}
    document = {
        **facts, "n": len(rows), "marks": MARKS, "kinds": KINDS, "floors": FLOORS, "columns": columns,
        "things": pools, "texts": list(texts), "todo": listed, "moved": moved,
    }  # fmt: skip
    return safe_json(document)


def safe_json(document: Any) -> str:
    """Return JSON that ends no script element and no line of one, whatever the texts in it are."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _row_ids(rows: pd.DataFrame) -> list[Any]:
    """Return the ids; 0 for a window whose id is its product, site and number, which the script puts together."""
    if not len(rows):
        return []
    made = rows["product_id"] + "|" + rows["site_id"] + "|w" + rows["window"].astype(str)
    return rows["row_id"].where(rows["row_id"] != made, 0).tolist()


def _numbers(values: pd.Series) -> list[Any]:
    return values.astype(object).where(values.notna(), None).tolist()


def _places(values: pd.Series, known: Iterable[str]) -> list[int]:
    return values.map({name: k for k, name in enumerate(known)}).tolist()


def _things(ids: pd.Series, names: pd.Series) -> tuple[list[int], list[list[str]]]:
    codes, found = pd.factorize(ids)
    called = dict(zip(ids, names, strict=True))
    return codes.tolist(), [[str(one), called[one]] for one in found]


def _texts(values: pd.Series, pool: dict[str, int]) -> list[int]:
    """Return the place of every text in the pool, −1 for none; new texts join it."""
    codes, found = pd.factorize(values)
    places = np.array([pool.setdefault(text, len(pool)) if text else -1 for text in found], dtype=int)
    return places[codes].tolist() if len(found) else []


def _trimmed(places: list[int]) -> list[int]:
    end = len(places)
    while end and places[end - 1] < 0:
        end -= 1
    return places[:end]


def _short(places: list[int]) -> list[int] | str:
    """Return one text instead of a list where every number has a mark."""
    return "".join(MARKS[k] for k in places) if min(places) >= 0 and max(places) < len(MARKS) else places


def _drops(values: pd.Series) -> list[Any]:
    """Return how far each value lies below the one before: shorter than values that fall from row to row."""
    drops = values.shift(1) - values
    drops.iloc[:1] = -values.iloc[:1]
    return _numbers(drops)


def _curves(history: np.ndarray) -> str:
    marks = np.array([*MARKS, " "])
    return "".join(marks[history].ravel())


def _todo(row: Mapping[str, Any]) -> list[Any]:
    return [None if pd.isna(value) else value if isinstance(value, str) else int(value) for value in row.values()]
