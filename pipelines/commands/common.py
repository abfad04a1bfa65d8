"""What every command takes, and how it finds its settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    from pipelines.settings import Settings

Flag = Parameter(negative="", show_default=False)
Count = Annotated[int, Parameter(validator=Number(gte=0))]
Task = Literal["delay", "shift"]


def _days(_: object, tokens: Sequence[Any]) -> int:
    """Read a span of time such as 7d or 4w; a bare number is days."""
    text = str(tokens[0].value).strip().lower()
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("d", "w") else (text, "d")
    if not number.isdigit() or int(number) < 1:
        raise ValueError(f"{text!r} is no span of time; expected days or weeks such as 7d or 4w")
    return int(number) * (7 if unit == "w" else 1)


def _day(_: object, tokens: Sequence[Any]) -> date:
    """Read a day."""
    text = str(tokens[0].value).strip()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no day; expected YYYY-MM-DD such as 2026-01-05") from None


Days = Annotated[int, Parameter(converter=_days)]
Day = Annotated[date, Parameter(converter=_day)]
Week = Annotated[Day | None, Parameter(name=("--week", "--as-of"))]
"""A published week: every command that reads one knows both names."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes."""

    workspace: Annotated[Path, Parameter(env_var="BULLWHIP_WORKSPACE")] = Path()
    "The folder that holds bullwhip.toml, the data and all results."
    json: Annotated[bool, Flag] = False
    "Print exactly one JSON document on stdout."


HERE = Common()


def settings_of(common: Common, **flags: Any) -> "Settings":
    """Return the settings, with the environment set that prefect and mlflow read when they are imported."""
    from pipelines.environment import apply_environment
    from pipelines.settings import UserError, load

    refuse_a_file(common.workspace)
    if not common.workspace.exists():
        raise UserError(
            f"there is no workspace {common.workspace}; make one: bullwhip init --workspace {common.workspace}"
        )
    settings = load(common.workspace, **flags)
    apply_environment(settings)
    return settings


def day_of(settings: "Settings") -> date:
    """Return the day a command is about: --as-of, else Monday of this week."""
    return settings.as_of_on(datetime.now(UTC).date())


def refuse_a_file(workspace: Path) -> None:
    """Raise UserError where a file is named in place of the folder."""
    from pipelines.settings import UserError

    if workspace.exists() and not workspace.is_dir():
        raise UserError(f"--workspace is the file {workspace}; expected the folder that holds bullwhip.toml")


def warming_up(settings: "Settings") -> Callable[[], None]:
    """Begin what takes seconds, and return what waits for it; to be called before anything large is imported."""
    from pipelines.warmup import prepare_database, refuse_unwritable, warm_up

    refuse_unwritable(settings.workspace)
    prepare_database(settings)
    return warm_up(settings.workspace)
