"""What may be tuned, between which bounds, and where the search begins: at the defaults."""

from collections.abc import Mapping
from dataclasses import dataclass

TUNABLE = (
    "rounds", "learning_rate", "num_leaves", "min_data_in_leaf", "feature_fraction", "bagging_fraction", "lambda_l2",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """One parameter: whole where its default is whole, searched on a log scale where the scale is what matters."""

    name: str
    low: float
    high: float
    default: float | int
    log: bool = False


def space(task: str) -> tuple[Choice, ...]:
    """Return what may be tuned of a task's model: a choice for each of TUNABLE."""
    from models import hazard, shift  # with LightGBM, which settings do without

    model = {"delay": hazard, "shift": shift}[task]
    usual: Mapping[str, float | int] = {**model.PARAMS, "rounds": model.ROUNDS}
    return (
        Choice("rounds", 40, 600, usual["rounds"], log=True),
        Choice("learning_rate", 0.02, 0.2, float(usual["learning_rate"]), log=True),
        Choice("num_leaves", 4, 64, int(usual["num_leaves"]), log=True),
        Choice("min_data_in_leaf", 20, 800, int(usual["min_data_in_leaf"]), log=True),
        Choice("feature_fraction", 0.2, 1.0, float(usual["feature_fraction"])),
        Choice("bagging_fraction", 0.3, 1.0, float(usual["bagging_fraction"])),
        Choice("lambda_l2", 0.1, 200.0, float(usual["lambda_l2"]), log=True),
    )
