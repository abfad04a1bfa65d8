"""Read one frozen settings object from bullwhip.toml, the environment and flags."""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, Secret, ValidationError, field_validator

from models.tuning import TUNABLE
from pipelines import running
from pipelines.addresses import MailAddress, MailServer, ServerURL, Webhook, WebhookURL, mask
from pipelines.values import Country, Cron, TimeZone

FILE = "bullwhip.toml"
PREFIX = "BULLWHIP_"
CRON = 'five fields of cron such as "0 6 * * MON", or "" for only when asked'
SCHEMAS = ("bullwhip", "mlflow", "prefect")  # of `database`
FUNCTIONS = ("procurement", "logistics", "manufacturing", "sales", "finance")


class UserError(Exception):
    """Something the user can put right; the message is one line and says how."""

    exit_code = 2


class GateRefused(UserError):
    """A model was trained but is not better than what it would replace."""

    exit_code = 4


class Unreachable(UserError):
    """A service or database that was named does not answer."""

    exit_code = 6


class DataSource(Secret[str]):
    """Where tables are read from or published to; str() and repr() never show a password, get_secret_value() does."""

    def _display(self) -> str:
        return mask(self.get_secret_value())


def key(default: Any, about: str, expected: str, **limits: Any) -> Any:
    """Return a field that knows what to say to a person: in the template, and when its value is wrong."""
    return Field(default, description=about, json_schema_extra={"expected": expected}, **limits)


class Settings(BaseModel):
    """Everything a command can be told; `load` builds it, the constructor alone reads neither file nor environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    workspace: Path = key(Path(), "The folder that holds everything.", "a folder")
    data: DataSource = key(
        "data",
        "Where the input tables are: a folder (a relative one starts at this file) or a database URL."
        " A URL with a password belongs in the environment: BULLWHIP_DATA.",
        "a folder or a database URL such as postgresql+psycopg://user@host/name",
    )
    publish: DataSource = key(
        "",
        "Where risk tables are published and read back from: empty for this folder (DuckDB and Parquet),"
        " or a database URL. A URL with a password belongs in the environment: BULLWHIP_PUBLISH.",
        'a database URL such as postgresql+psycopg://user@host/name, or ""',
    )
    currency: str = key(
        "EUR", "The one currency all money is in.", 'three capital letters such as "EUR"', pattern="^[A-Z]{3}$"
    )
    as_of: date | None = key(
        None,
        "The day predictions are made for: only what was known before it is used."
        " Left out: Monday of the current week.",
        "a day such as 2026-01-05",
    )
    every_days: int = key(
        7, "Days between two snapshots: 7 is weekly, 1 daily.", "a whole number from 1 to 28", ge=1, le=28
    )
    tolerance_days: int = key(0, "Days after the promise that still count as on time.", "a whole number from 0", ge=0)
    short_tolerance: float = key(
        0.0,
        "Share of the quantity that may be missing in a complete delivery.",
        "a number from 0 to below 1",
        ge=0,
        lt=1,
    )
    country: Country = key(
        "",
        'Whose public holidays are known ahead, as two letters such as "DE"; empty for none.',
        'the two capital letters of a country whose holidays are known, such as "DE", or ""',
    )
    attributes: tuple[str, ...] = key(
        (),
        "Further columns of purchases the delay model may read; each must be a fact at order time.",
        'a list of column names such as ["ship_mode"]',
    )
    max_quarantined: float = key(
        0.10, "Share of bad rows in a table above which a run stops.", "a number from 0 to 1", ge=0, le=1
    )
    max_stale: float = key(
        8.0,
        "Times its usual gap a table that a task rests on may bring no new fact before scoring and training stop.",
        "a number above 0",
        gt=0,
    )
    catch_up_weeks: int = key(
        13,
        "Weeks back within which a scheduled score publishes what was missed; bullwhip catch-up --from goes further.",
        "a whole number from 0",
        ge=0,
    )
    seed: int = key(7, "Start of every random choice.", "a whole number from 0", ge=0)
    engine: Literal["local", "dask"] = key(
        "local",
        "Where inputs are built, models fitted and rows scored: here, or by the workers of a Dask cluster.",
        '"local" or "dask"',
    )
    dask_scheduler: str = key(
        "",
        "The scheduler's address; empty: workers on this machine, for the time of a run. Certificates are a matter of"
        " Dask's own configuration.",
        'an address such as "tls://scheduler.example:8786", or ""',
        pattern=r"^((tcp|tls|ws|wss)://[^\s@]+)?$",
    )
    partitions: int = key(
        0,
        "Into how many parts suppliers, and products of demand, are cut, of which one is in memory at a time; 0: as"
        " many as two million lines, or 6,000 series, each ask for. The tables are the same whatever the number.",
        "a whole number from 0",
        ge=0,
    )
    scratch: str = key(
        "",
        "The folder for the parts of a run; with Dask, one that all workers reach. Empty: the workspace's own.",
        'a folder such as "/shared/scratch", or ""',
    )
    threads: int = key(0, "Processor threads for training; 0 for all.", "a whole number from 0", ge=0)
    memory: str = key(
        "",
        "Memory the input tables may take before they spill to disk; empty: four fifths of the machine's, or 1 GB"
        " where they are kept in a file of the scratch folder: with some six million order lines and more.",
        'a size such as "4GB", or ""',
        pattern=r"^(\d+(\.\d+)? ?[MGT]i?B)?$",
    )
    history_weeks: int = key(156, "Weeks of history to learn from.", "a whole number from 1", ge=1)
    max_snapshots: int = key(
        500_000,
        "Rows a task learns from and is judged on at most, a sample by a hash of key and day beyond, out of at most two"
        " purchase lines, or a 25th of a series, for each: it bounds what training takes. Scoring takes no sample.",
        "a whole number from 1000",
        ge=1000,
    )
    windows: tuple[tuple[int, int], ...] = key(
        ((0, 4), (4, 4), (8, 5)),
        "The windows in which demand is judged: [weeks from the day to the window, weeks in it].",
        "one to eight different [lead, length] in weeks, together at most 26, such as [[0, 4], [4, 4], [8, 5]]",
        min_length=1,
        max_length=8,
    )
    planned_in_baseline: bool = key(
        True,
        "Whether promotions and prices that a calendar tells ahead are part of the demand that is expected: then a"
        " planned promotion is no shift. false: they are inputs of the model, and what they do counts as a shift.",
        "true or false",
    )
    tasks: tuple[Literal["delay", "shift"], ...] = key(
        ("delay", "shift"), "What to predict.", 'a list of "delay" and "shift"', min_length=1
    )
    board_url: str = key(
        "",
        "The address under which the folder `board` can be read, for links in the digest; empty: they name the file.",
        'an address such as "https://intranet.example/risks", or ""',
        pattern=r"^(https?://[^\s<>\"]+)?$",
    )
    mail_to: tuple[MailAddress, ...] = key(
        (), "Who gets the digest of every publication by mail.", 'a list of addresses such as ["planning@example.com"]'
    )
    mail_from: MailAddress = key("", "The sender of these mails.", 'an address such as "bullwhip@example.com"')
    smtp: MailServer = key(
        "",
        "The mail server. With a password it belongs in the environment: BULLWHIP_SMTP. Encrypted by STARTTLS unless it"
        " runs on this machine; ?tls=none and smtps:// (?tls=implicit) say otherwise.",
        "smtp://host:587 or smtps://host, with a user and a password before the host and ?tls=none if need be",
    )
    slack_webhook: Webhook = key(
        "",
        "The incoming webhook of a Slack channel for the digest. It is a secret: better in BULLWHIP_SLACK_WEBHOOK.",
        "an address that starts with https://",
    )
    teams_webhook: Webhook = key(
        "",
        'The address of a Teams workflow that starts "when a Teams webhook request is received" and posts the card it'
        " gets. It is a secret: better in BULLWHIP_TEAMS_WEBHOOK.",
        "an address that starts with https://",
    )
    database: DataSource = key(
        "",
        "A PostgreSQL database for everything: risk tables, MLflow and Prefect, each in a schema of its own; empty:"
        " files in this workspace. A URL with a password belongs in the environment: BULLWHIP_DATABASE.",
        "a URL such as postgresql://user@host/name, or nothing",
    )
    schedule_score: Cron = key("0 6 * * MON", "When `bullwhip deploy` has weeks scored, in cron's words.", CRON)
    schedule_train: Cron = key("0 3 1 * *", "When it has models trained.", CRON)
    schedule_backtest: Cron = key("", "When it has the last half year replayed.", CRON)
    schedule_monitor: Cron = key("0 7 * * *", "When it has models and inputs watched.", CRON)
    time_zone: TimeZone = key("UTC", "The time zone of these schedules.", 'a name such as "UTC" or "Europe/Berlin"')
    capacity: dict[str, int] = key(
        dict.fromkeys(FUNCTIONS, 25),
        "How many rows of the watchlist each function can work on in a week.",
        f"a table [capacity] with a whole number from 0 for any of {', '.join(FUNCTIONS)}",
    )

    params: dict[Literal["delay", "shift"], dict[str, int | float]] = key(
        {},
        "Parameters of the models that differ from the defaults, a table per task; `bullwhip tune` finds them.",
        f"a table [params.delay] or [params.shift] with numbers for any of {', '.join(TUNABLE)}",
    )

    @field_validator("attributes", "tasks", "mail_to", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [word.strip() for word in value.split(",") if word.strip()]
        return tuple(dict.fromkeys(value)) if isinstance(value, list | tuple) else value

    @field_validator("windows", mode="before")
    @classmethod
    def _from_words(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value

    @field_validator("windows")
    @classmethod
    def _ahead(cls, value: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        if len(set(value)) < len(value) or any(lead < 0 or length < 1 or lead + length > 26 for lead, length in value):
            raise ValueError("a window before the day, empty, too far ahead or given twice")
        return value

    @field_validator("publish")
    @classmethod
    def _url(cls, value: DataSource) -> DataSource:
        if value.get_secret_value() and "://" not in value.get_secret_value():
            raise ValueError("no URL")
        return value

    @field_validator("capacity", mode="before")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {name.strip(): rows.strip() for name, _, rows in (part.partition("=") for part in value.split(","))}
        return dict.fromkeys(FUNCTIONS, 25) | value if isinstance(value, dict) else value

    @field_validator("capacity")
    @classmethod
    def _known(cls, value: dict[str, int]) -> dict[str, int]:
        if set(value) > set(FUNCTIONS) or min(value.values()) < 0:
            raise ValueError("unknown function or negative rows")
        return value

    @field_validator("database")
    @classmethod
    def _postgres(cls, value: DataSource) -> DataSource:
        if value.get_secret_value() and not re.match(r"postgres(ql)?(\+\w+)?://", value.get_secret_value()):
            raise ValueError("not PostgreSQL")
        return value

    @field_validator("params")
    @classmethod
    def _tunable(cls, value: dict[str, dict[str, int | float]]) -> dict[str, dict[str, int | float]]:
        if not {name for given in value.values() for name in given} <= set(TUNABLE):
            raise ValueError("unknown parameter")
        return value

    @property
    def data_url(self) -> str | None:
        """The database URL with its password, or None when the tables are in a folder."""
        location = self.data.get_secret_value()
        return location if "://" in location else None

    @property
    def data_folder(self) -> Path | None:
        """The folder of the tables, or None when they are in a database."""
        return None if self.data_url else self.workspace / Path(self.data.get_secret_value()).expanduser()

    @property
    def target(self) -> Path | DataSource:
        """Where risk tables are published and read back from: what the functions of pipelines.publish take."""
        if self.database.get_secret_value() and not self.publish.get_secret_value():
            return DataSource(self.database_url("psycopg", schema=SCHEMAS[0]))
        return self.publish if self.publish.get_secret_value() else self.workspace

    @property
    def tracking_uri(self) -> str:
        """MLflow's own MLFLOW_TRACKING_URI where the user has set it, the server `up` runs, else the store itself."""
        return os.environ.get("MLFLOW_TRACKING_URI") or running.url(self.workspace, "mlflow") or self.tracking_store

    @property
    def tracking_store(self) -> str:
        """The database behind MLflow: schema mlflow of `database`, or a file in the workspace."""
        file = f"sqlite:///{self.workspace.resolve().as_posix()}/mlflow/mlflow.db"
        return self.database_url("psycopg", schema="mlflow") or file

    def database_url(self, driver: str, schema: str = "") -> str:
        """Return `database` for a driver, with its password; psycopg looks into `schema`. Empty when there is none."""
        if not (given := self.database.get_secret_value()):
            return ""
        parts = urlsplit(given)
        query = parse_qsl(parts.query)
        if driver == "asyncpg":
            query = [("ssl" if k == "sslmode" else k, v) for k, v in query]
        elif schema:
            query.append(("options", f"-csearch_path={schema}"))
        return urlunsplit(parts._replace(scheme=f"postgresql+{driver}", query=urlencode(query, quote_via=quote)))

    def as_of_on(self, today: date) -> date:
        """Return the day predictions are made for when the calendar says `today`."""
        return self.as_of or today - timedelta(days=today.weekday())

    def public(self) -> dict[str, Any]:
        """Return plain JSON values for logs and reports, without secrets."""
        return self.model_dump(mode="json") | {"data": str(self.data), "publish": str(self.publish)}


KEYS = tuple(name for name in Settings.model_fields if name != "workspace")


class Given(NamedTuple):
    """One value and the words for where it came from."""

    value: Any
    origin: str


def load(workspace: Path | str, environ: Mapping[str, str] | None = None, **flags: Any) -> Settings:
    """Read settings: bullwhip.toml < environment BULLWHIP_* < flags; a flag that is None was not given."""
    workspace = Path(workspace).expanduser()
    given = {
        **_from_file(workspace / FILE),
        **_from_environment(os.environ if environ is None else environ),
        **{k: Given(v, f"--{k.replace('_', '-')}") for k, v in flags.items() if v is not None},
    }
    for name, (_, origin) in given.items():
        if name not in KEYS:
            raise UserError(f"{origin}: unknown key {name!r}, {_closest(name)}")
    try:
        return Settings(workspace=workspace, **{name: value for name, (value, _) in given.items()})
    except ValidationError as error:
        raise UserError(_in_one_line(error, given)) from None


def _from_file(path: Path) -> dict[str, Given]:
    if not path.exists():
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}; expected TOML such as `bullwhip init` writes") from None
    return {name: Given(value, str(path)) for name, value in values.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """Take what is ours; other BULLWHIP_* variables pass (Kubernetes invents some), slips of the pen do not."""
    given = {}
    for variable in environ:
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or not environ[variable] or name in ("workspace", "debug"):
            continue
        if name in KEYS or difflib.get_close_matches(name, KEYS, 1, 0.8):
            given[name] = Given(environ[variable], f"environment variable {variable}")
    return given


def _closest(name: str) -> str:
    near = difflib.get_close_matches(name, KEYS, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(KEYS)}"


def _in_one_line(error: ValidationError, given: Mapping[str, Given]) -> str:
    name = str(error.errors()[0]["loc"][0])
    value, origin = given[name]
    extra = Settings.model_fields[name].json_schema_extra
    expected = extra["expected"] if isinstance(extra, dict) else ""
    hidden = Settings.model_fields[name].annotation in (ServerURL, WebhookURL)
    said = repr(value) if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    shown = "'***'" if hidden else " ".join(mask(said).split())
    others = sorted({str(e["loc"][0]) for e in error.errors()} - {name})
    also = f" (also wrong: {', '.join(others)})" if others else ""
    return f"{origin}: {name} is {shown}, expected {expected}{also}"
