"""What PostgreSQL does better than the plain way: COPY, locks that end with their holder, comments, checks, rights."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping

import psycopg
import pyarrow as pa
import pyarrow.csv as csv
import sqlalchemy as sa
from psycopg import sql

from models.risk_columns import KIND_ABOUT, Column, Table

LOCK = "bullwhip publication"
AT_ONCE = 32_768  # rows per block of COPY


def lock(con: sa.Connection, wait_seconds: float) -> None:
    """Wait to be the only publisher of this schema until the transaction ends."""
    milliseconds = max(int(wait_seconds * 1000), 1)  # 0 would be for ever
    con.execute(sa.text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": str(milliseconds)})
    con.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name || current_schema(), 0))"), {"name": LOCK})


def copy(con: sa.Connection, table: sa.Table, rows: pa.Table) -> None:
    """Append rows by COPY; in CSV as Arrow writes it NULL is nothing at all and empty text is `""`."""
    columns = sql.SQL(", ").join(map(sql.Identifier, rows.column_names))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(sql.Identifier(table.name), columns)
    how = csv.WriteOptions(include_header=False)
    with _driver(con).cursor().copy(statement) as stream:
        for batch in rows.to_batches(AT_ONCE):
            block = io.BytesIO()
            csv.write_csv(batch, block, how)
            stream.write(block.getbuffer())


def settle(
    con: sa.Connection, table: sa.Table, contract: Table, columns: Mapping[str, Column], views: Mapping[str, str]
) -> None:
    """Bring checks, comments and views to what the contract says now; nothing to do when they are.

    A changed check holds for new rows only. A view keeps its rights, a new one gets those of `publications`.
    """
    about = f"{contract.about} Contract {_digest(contract, table, columns)}."
    if _comment(con, table.name) == about:
        return
    statements = [*_checks(con, table, columns), *_commented("TABLE", table.name, about, columns)]
    place, names = sql.Identifier(table.name), sql.SQL(", ").join(sql.Identifier(c.name) for c in table.columns)
    for view, where in views.items():
        rows = sql.SQL("SELECT {} FROM {} ").format(names, place) + sql.SQL(where)  # type: ignore[arg-type]
        statements.append(sql.SQL("CREATE OR REPLACE VIEW {} AS {}").format(sql.Identifier(view), rows))
        statements += _commented("VIEW", view, contract.about, columns)
    statements += [_granted(view, role) for role in readers(con) for view in views]
    driver = _driver(con)
    driver.execute(sql.SQL(";\n").join(statements))


def grant(con: sa.Connection, role: str, views: Iterable[str]) -> None:
    """Let a role read the views, and nothing else."""
    (schema,) = con.execute(sa.text("SELECT current_schema()")).one()
    usage = sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(schema), sql.Identifier(role))
    _driver(con).execute(sql.SQL(";\n").join([usage, *(_granted(view, role) for view in views)]))


def readers(con: sa.Connection) -> list[str]:
    """Return the roles besides the owner that may read `publications`."""
    query = sa.text("""
        SELECT DISTINCT grantee FROM information_schema.role_table_grants
        WHERE table_name = 'publications' AND table_schema = current_schema() AND privilege_type = 'SELECT'
          AND grantee NOT IN (grantor, 'PUBLIC') ORDER BY grantee""")
    return list(con.execute(query).scalars())


def _driver(con: sa.Connection) -> psycopg.Connection:
    driver = con.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


def _digest(contract: Table, table: sa.Table, columns: Mapping[str, Column]) -> str:
    said = repr((contract.about, [c.name for c in table.columns], list(columns.items())))
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def _comment(con: sa.Connection, relation: str) -> str | None:
    return con.execute(
        sa.text("SELECT obj_description(to_regclass(:name), 'pg_class')"), {"name": f'"{relation}"'}
    ).scalar_one()


def _checks(con: sa.Connection, table: sa.Table, columns: Mapping[str, Column]) -> Iterator[sql.Composed]:
    place = sql.Identifier(table.name)
    for check in sa.inspect(con).get_check_constraints(table.name):
        yield sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(place, sql.Identifier(check["name"] or ""))
    for name, rule in columns.items():
        if conditions := list(_conditions(name, rule)):
            yield sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID").format(
                place, sql.Identifier(f"{name[:57]}_check"), sql.SQL(" AND ").join(conditions)
            )


def _conditions(name: str, rule: Column) -> Iterator[sql.Composed]:
    column = sql.Identifier(name)
    if not (rule.nullable or rule.many):  # another week may do without it
        yield sql.SQL("{} IS NOT NULL").format(column)
    if rule.one_of:
        yield sql.SQL("{} IN ({})").format(column, sql.SQL(", ").join(map(sql.Literal, rule.one_of)))
    if rule.minimum is not None:
        yield sql.SQL("{} >= {}").format(column, sql.Literal(rule.minimum))
    if rule.maximum is not None:
        yield sql.SQL("{} <= {}").format(column, sql.Literal(rule.maximum))
    if rule.kind == "number" and rule.minimum is None:
        yield sql.SQL("{} > '-Infinity'").format(column)
    if rule.kind == "number" and rule.maximum is None:  # NaN is above infinity
        yield sql.SQL("{} < 'Infinity'").format(column)


def _commented(kind: str, relation: str, about: str, columns: Mapping[str, Column]) -> Iterator[sql.Composed]:
    place = sql.Identifier(relation)
    yield sql.SQL("COMMENT ON {} {} IS {}").format(sql.SQL(kind), place, sql.Literal(about))  # type: ignore[arg-type]
    for name, rule in columns.items():
        said = f"{rule.about} {f'Unit: {rule.unit}.' if rule.unit else KIND_ABOUT[rule.kind]}"
        column = sql.SQL("{}.{}").format(place, sql.Identifier(name))
        yield sql.SQL("COMMENT ON COLUMN {} IS {}").format(column, sql.Literal(said))


def _granted(view: str, role: str) -> sql.Composed:
    return sql.SQL("GRANT SELECT ON {} TO {}").format(sql.Identifier(view), sql.Identifier(role))
