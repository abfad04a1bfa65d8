"""What may be tuned, between which bounds, and where the search begins: at the defaults."""

from collections.abc import Mapping
from dataclasses import dataclass

from models import hazard, shift


@dataclass(frozen=True, slots=True)
class Choice:
    """One parameter: whole where its default is whole, searched on a log scale where the scale is what matters."""

    name: str
    low: float
    high: float
    default: float | int
    log: bool = False


def _boosting(params: Mapping[str, float | int], rounds: int) -> tuple[Choice, ...]:
    return (
        Choice("rounds", 40, 600, rounds, log=True),
        Choice("learning_rate", 0.02, 0.2, float(params["learning_rate"]), log=True),
        Choice("num_leaves", 4, 64, int(params["num_leaves"]), log=True),
        Choice("min_data_in_leaf", 20, 800, int(params["min_data_in_leaf"]), log=True),
        Choice("feature_fraction", 0.2, 1.0, float(params["feature_fraction"])),
        Choice("bagging_fraction", 0.3, 1.0, float(params["bagging_fraction"])),
        Choice("lambda_l2", 0.1, 200.0, float(params["lambda_l2"]), log=True),
    )


SPACE: Mapping[str, tuple[Choice, ...]] = {
    "delay": _boosting(hazard.PARAMS, hazard.ROUNDS),
    "shift": _boosting(shift.PARAMS, shift.ROUNDS),
}
