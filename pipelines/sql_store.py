"""Keep publications in a database that SQLAlchemy speaks to: one transaction each, PostgreSQL at the speed of COPY.

`<table>_rows` and `publication_ledger` are append-only tables, `<table>_history`, `_week`, `_current` and
`publications` views of them. Everything is read back through the views, so whoever may read them can use bullwhip.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import sqlalchemy as sa

from models.risk_columns import Column, Table
from models.risk_contract import ADDED, BY_NAME, PUBLICATIONS
from pipelines import databases, postgres
from pipelines.content import SQL_TYPE, TYPES
from pipelines.ledger import VIEWS, Line
from pipelines.releases import PublishConflict
from pipelines.settings import DataSource, Unreachable, UserError

PLACE = Column("row_number", "integer", "Place of the row in its table as it was handed in.")
BEFORE = (*ADDED, PLACE)
LEDGER = "publication_ledger"
SA_TYPE: Mapping[str, sa.types.TypeEngine] = {
    "VARCHAR": sa.Text(),
    "BIGINT": sa.BigInteger(),
    "DOUBLE": sa.Double(),
    "BOOLEAN": sa.Boolean(create_constraint=False),
    "TIMESTAMP": sa.DateTime(),
    "DATE": sa.Date(),
}
ARROW = {kind: arrow for arrow, kind in SQL_TYPE.items()} | {"DATE": pa.date32()}
AT_ONCE = 20_000  # rows per insert


@dataclass(frozen=True, slots=True)
class SqlStore:
    """A database; its URL is a secret."""

    url: DataSource

    @contextmanager
    def reading(self) -> Iterator["SqlReader"]:
        with self._connected("read", 30) as con:
            if con.dialect.name == "postgresql":
                con = con.execution_options(isolation_level="REPEATABLE READ")
            elif con.dialect.name == "sqlite":
                con.exec_driver_sql("BEGIN")
            yield SqlReader(con)

    @contextmanager
    def publishing(self, wait_seconds: float) -> Iterator["SqlWriter"]:
        with self._connected("publish to", wait_seconds) as con:
            if con.dialect.name == "postgresql":
                postgres.lock(con, wait_seconds)
            elif con.dialect.name == "sqlite":
                con.exec_driver_sql("BEGIN IMMEDIATE")
            yield SqlWriter(con)
            con.commit()

    def path_after(self) -> None:
        return None

    def grant_reader(self, role: str) -> None:
        """Let a role read the views, those of tables still to come too, and nothing else."""
        with self._connected("grant rights in", 30) as con:
            if con.dialect.name != "postgresql":
                raise UserError(f"{self.url} is not PostgreSQL: a role that only reads needs PostgreSQL")
            reader = SqlReader(con)
            views = [view for table in BY_NAME.values() if reader.kinds(table.name) for view in _views(table, BEFORE)]
            if not reader.ledger():
                raise UserError(f"nothing published yet in {self.url}, so there is nothing to read; run bullwhip score")
            postgres.grant(con, role, ["publications", *views])
            con.commit()

    @contextmanager
    def _connected(self, action: str, wait_seconds: float) -> Iterator[sa.Connection]:
        """Hand out a connection, rolled back unless it was committed; say in one line what the database refuses."""
        engine = databases.engine_of(self.url.get_secret_value(), wait_seconds)
        try:
            with engine.connect() as con:
                yield con
        except (sa.exc.SQLAlchemyError, psycopg.Error) as error:
            raise self._plainly(error, engine.url, action, wait_seconds) from None
        finally:
            engine.dispose()

    def _plainly(self, error: Exception, place: sa.URL, action: str, wait_seconds: float) -> UserError:
        cause = getattr(error, "orig", None) or error
        reason = databases.without_password(error, place).rstrip(".")
        if isinstance(cause, psycopg.errors.LockNotAvailable) or "database is locked" in reason:
            return PublishConflict(
                f"{self.url} is being published by somebody else; waited {wait_seconds:g} s, try again later"
            )
        if isinstance(error, sa.exc.IntegrityError) and LEDGER in reason:
            return PublishConflict(f"{self.url} was published by somebody else at the same moment; run it again")
        return Unreachable(f"cannot {action} {self.url}: {reason}; put that right, then run it again")


@dataclass(frozen=True, slots=True)
class SqlReader:
    """What one connection sees."""

    con: sa.Connection
    path: Path | None = None

    def ledger(self) -> list[Line]:
        if not (kinds := self._kinds("publications")):
            return []
        view = _view("publications", kinds)
        rows = self.con.execute(sa.select(view).order_by(view.c.as_of, view.c.revision)).mappings()
        return [Line.of(row) for row in rows]

    def kinds(self, table: str) -> dict[str, str]:
        published = self._kinds(f"{table}_history")
        return {name.lower(): kind for name, kind in published.items() if name != PLACE.name}

    def fixed(self, table: str, column: str) -> bool:  # noqa: ARG002  (a column under a view keeps its type)
        return True

    def rows(self, table: str, publication_ids: Sequence[str], columns: Sequence[str] = ()) -> pa.Table:
        kinds = self._kinds(f"{table}_history")
        view = _view(f"{table}_history", kinds)
        by_case = {name.lower(): name for name in kinds}
        wanted = [by_case[c.lower()] for c in columns] or [name for name in kinds if name != PLACE.name]
        query = sa.select(*(view.c[name] for name in wanted)).where(view.c.publication_id.in_(publication_ids))
        found = self.con.execute(query.order_by(view.c.as_of, view.c[PLACE.name])).fetchall()
        values = zip(*found, strict=True) if found else [()] * len(wanted)
        return pa.table({n: pa.array(v, ARROW[kinds[n]]) for n, v in zip(wanted, values, strict=True)})

    def _kinds(self, relation: str) -> dict[str, str]:
        """Return the columns of a table or view with our names for their types, none when there is no such."""
        try:
            columns = sa.inspect(self.con).get_columns(relation)
        except sa.exc.NoSuchTableError:
            return {}
        return {c["name"]: _kind(c["type"]) for c in columns}


@dataclass(frozen=True, slots=True)
class SqlWriter(SqlReader):
    """A connection in the transaction of the one publisher."""

    def write(self, line: Line, content: Mapping[str, pa.Table], contract: Mapping[str, Table], shown: Line) -> None:  # noqa: ARG002  (views find it themselves)
        ledger = self._settled(LEDGER, PUBLICATIONS, {c.name: c for c in PUBLICATIONS.columns}, ())
        for name, table in content.items():
            rules = {c: contract[name].column(c) for c in table.column_names}
            place = self._settled(f"{name}_rows", contract[name], {k: c for k, c in rules.items() if c}, BEFORE)
            self._insert(place, _with_publication(table, line))
        self.con.execute(sa.insert(ledger), [asdict(line)])

    def _settled(
        self, relation: str, contract: Table, columns: Mapping[str, Column], before: tuple[Column, ...]
    ) -> sa.Table:
        """Return the table with all these columns, made or widened where needed, and its views."""
        rules = {c.name: c for c in before} | dict(columns)
        known = self._kinds(relation)
        by_case = {name.lower(): name for name in known}
        key = tuple(c.name for c in ADDED[:1] if before) + contract.key
        new = {name: rule for name, rule in rules.items() if name.lower() not in by_case}
        kinds = known | {name: _sql_kind(rule) for name, rule in new.items()}
        table = _table(relation, kinds, key)
        if not known:
            table.create(self.con)
        for name in new if known else ():
            named = self.con.dialect.identifier_preparer.quote(name)
            kind = table.c[name].type.compile(self.con.dialect)
            self.con.exec_driver_sql(f"ALTER TABLE {relation} ADD COLUMN {named} {kind}")
        views = _views(contract, before)
        added = {c.name: c for c in before}
        described = {name: rule for name in kinds if (rule := added.get(name) or contract.column(name))}
        if self.con.dialect.name == "postgresql":
            postgres.settle(self.con, table, contract, described, views)
        elif new:
            for view, where in views.items():
                self.con.exec_driver_sql(f"DROP VIEW IF EXISTS {view}")
                self.con.exec_driver_sql(f"CREATE VIEW {view} AS SELECT * FROM {relation} {where}")
        return table

    def _insert(self, table: sa.Table, rows: pa.Table) -> None:
        by_case = {name.lower(): name for name in table.c.keys()}  # noqa: SIM118
        rows = rows.rename_columns([by_case[name.lower()] for name in rows.column_names])
        if self.con.dialect.name == "postgresql":
            postgres.copy(self.con, table, rows)
            return
        for batch in rows.to_batches(AT_ONCE):
            self.con.execute(sa.insert(table), batch.to_pylist())


def _views(contract: Table, before: tuple[Column, ...]) -> dict[str, str]:
    """Return the names of a table's views, and what each takes of it."""
    if not before:
        return {contract.name: ""}
    return {f"{contract.name}_history": "", **{f"{contract.name}_{name}": where for name, where in VIEWS.items()}}


def _with_publication(table: pa.Table, line: Line) -> pa.Table:
    n = table.num_rows
    added = {
        "publication_id": pa.repeat(line.publication_id, n),
        "as_of": pa.repeat(pa.scalar(line.as_of, pa.date32()), n),
        "schema_version": pa.repeat(line.schema_version, n),
        PLACE.name: pa.array(np.arange(n)),
    }
    return pa.table({**added, **{name: table[name] for name in table.column_names}})


def _table(relation: str, kinds: Mapping[str, str], key: Sequence[str]) -> sa.Table:
    columns = [
        sa.Column(name, SA_TYPE[kind], primary_key=name in key, autoincrement=False) for name, kind in kinds.items()
    ]
    return sa.Table(relation, sa.MetaData(), *columns)


def _view(relation: str, kinds: Mapping[str, str]) -> sa.TableClause:
    return sa.table(relation, *(sa.column(name, SA_TYPE[kind]) for name, kind in kinds.items()))


def _sql_kind(rule: Column) -> str:
    return "DATE" if rule.name == "as_of" else SQL_TYPE[TYPES[rule.kind]]


def _kind(came: sa.types.TypeEngine) -> str:
    """Return our name for the type of a column as the database tells it."""
    for kind, types in (
        ("BOOLEAN", sa.Boolean), ("BIGINT", sa.Integer), ("DOUBLE", sa.Float), ("TIMESTAMP", sa.DateTime),
        ("DATE", sa.Date), ("VARCHAR", sa.String),
    ):  # fmt: skip
        if isinstance(came, types):
            return kind
    return str(came)
