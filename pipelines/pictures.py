"""Draw how well a model does next to the best naive rule, as pictures for MLflow."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

MODEL, RULES, INK, GRID = "#1f6f8b", ("#d1803a", "#8a8f98", "#a6761d", "#7a5195", "#b0413e"), "#2b2f36", "#e4e6ea"
GROUPS, BARS = 15, 20  # of rows of equal size in a reliability diagram; of features in a picture of importance


def reliability(y: ArrayLike, p: ArrayLike, rule_p: ArrayLike, *, rule_name: str, title: str) -> Figure:
    """Draw predicted against observed shares in equal-sized groups, and how often each probability is given."""
    y, p, rule_p = (np.asarray(a, dtype=float) for a in (y, p, rule_p))
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [4, 1]})
    top = min(1.0, 1.08 * max(_top_of_groups(y, p), _top_of_groups(y, rule_p), 0.05))
    upper.plot([0, top], [0, top], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="as good as its word")
    for values, name, color, marker in ((rule_p, rule_name, RULES[0], "s"), (p, "model", MODEL, "o")):
        predicted, observed, half = _groups(y, values)
        upper.errorbar(
            predicted, observed, yerr=half, color=color, marker=marker, markersize=5, linewidth=1.6,
            elinewidth=0.8, capsize=2, label=name,
        )  # fmt: skip
        lower.hist(values, bins=np.linspace(0, 1, 41), histtype="step", color=color, linewidth=1.4)
    upper.set(xlim=(0, top), ylim=(0, top), ylabel="share that came true")
    lower.set(xlabel="predicted probability (groups of equal size; bars: 95 % interval)", ylabel="rows")
    upper.legend(frameon=False, loc="upper left")
    return _finished(figure, (upper, lower), title, y)


def precision_recall(y: ArrayLike, p: ArrayLike, rule_ps: Mapping[str, ArrayLike], title: str) -> Figure:
    """Draw precision over recall of the model and of every naive rule, the model on top."""
    y = np.asarray(y, dtype=float)
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    rules = sorted(((_average_precision(y, v), name, v) for name, v in rule_ps.items()), key=lambda r: -r[0])
    for i, (area, name, values) in enumerate(rules):
        color, style = (RULES[0], "-") if i == 0 else (RULES[1 + (i - 1) % 4], (0, (1 + i, 2)))
        axes.step(
            *_curve(y, values), where="pre", color=color, linestyle=style, linewidth=1.4, label=f"{name}  {area:.3f}"
        )
    axes.step(*_curve(y, p), where="pre", color=MODEL, linewidth=2.2, label=f"model  {_average_precision(y, p):.3f}")
    axes.axhline(y.mean(), color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"guessing  {y.mean():.3f}")
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1.02),
        xlabel="recall: share of all events that are on the list",
        ylabel="precision: share of the list that came true",
    )
    handles, labels = axes.get_legend_handles_labels()
    order = [len(rules), *range(len(rules)), len(rules) + 1]
    axes.legend([handles[i] for i in order], [labels[i] for i in order], frameon=False, title="area under the curve")
    return _finished(figure, (axes,), title, y)


def importance(frame: pd.DataFrame, title: str) -> Figure:
    """Draw which features the trees gain from: columns name and gain_share (sums to one over all features)."""
    shown = frame.sort_values("gain_share", ascending=False).head(BARS).iloc[::-1]
    figure = Figure(figsize=(7.2, 1.2 + 0.28 * len(shown)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(shown["name"].astype(str), shown["gain_share"], color=MODEL, height=0.7)
    axes.bar_label(bars, [f"{share:.1%}" for share in shown["gain_share"]], padding=3, fontsize=8, color=INK)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set(xlabel="share of the total gain of all features", xlim=(0, 1.15 * max(shown["gain_share"].max(), 0.01)))
    rest = f"; the other {len(frame) - len(shown)} make up the rest" if len(frame) > len(shown) else ""
    _style(axes)
    axes.grid(visible=False, axis="y")
    figure.suptitle(title, fontsize=12, color=INK, x=0.02, ha="left")
    axes.set_title(f"{len(shown)} of {len(frame)} features{rest}", fontsize=9, color=INK, loc="left")
    return figure


def skill_over_time(weeks: pd.DataFrame, title: str) -> Figure:
    """Draw the Brier skill over the best rule per week with its interval, and what share came true.

    `weeks` has week (ISO day), bss_best_rule, bss_best_rule_interval, prevalence, n and positives.
    """
    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    day = pd.to_datetime(weeks["week"])
    skill = weeks["bss_best_rule"].to_numpy(float)
    low, high = np.array([[np.nan if v is None else v for v in ends] for ends in weeks["bss_best_rule_interval"]]).T
    upper.fill_between(day, low.astype(float), high.astype(float), color=MODEL, alpha=0.15, linewidth=0)
    upper.plot(day, skill, color=MODEL, marker="o", markersize=4, linewidth=1.8)
    upper.axhline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    shown = np.concatenate([skill, [0.0]])
    upper.set(
        ylabel="Brier skill over the week's best rule", ylim=(min(np.nanmin(shown), 0) - 0.1, np.nanmax(shown) + 0.1)
    )
    lower.bar(day, weeks["prevalence"].to_numpy(float), width=5, color=RULES[1])
    lower.set(ylabel="came true")
    lower.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    y = np.repeat([1.0, 0.0], [int(weeks["positives"].sum()), int((weeks["n"] - weeks["positives"]).sum())])
    return _finished(figure, (upper, lower), title, y)


def value_captured(curves: pd.DataFrame, title: str) -> Figure:
    """Draw which share of the value that came true sits in the top share of each day's list, a line per forecaster."""
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    for name, color in zip(curves.columns.drop("share"), (MODEL, RULES[0]), strict=False):
        axes.plot(curves["share"], curves[name], color=color, linewidth=2, label=name)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="at random")
    axes.set(
        xlim=(0, 1), ylim=(0, 1.02), xlabel="share of the day's rows worked on", ylabel="share of the value caught"
    )
    axes.legend(frameon=False, loc="lower right")
    _style(axes)
    figure.suptitle(title, fontsize=12, color=INK, x=0.02, ha="left")
    return figure


def lead_time(days: NDArray, capacity: int, title: str) -> Figure:
    """Draw for how many late lines the list of `capacity` rows warned without a gap, at least so many days ahead."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    ahead = np.arange(1, max(int(np.max(days, initial=0)), 7) + 1)
    axes.step(ahead, [(days >= d).mean() if len(days) else 0 for d in ahead], where="post", color=MODEL, linewidth=2)
    axes.set(xlabel="days before the promise", ylabel="share of late lines warned of", ylim=(0, None))
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    _style(axes)
    figure.suptitle(title, fontsize=12, color=INK, x=0.02, ha="left")
    axes.set_title(f"{len(days):,} late lines, lists of {capacity} rows a day", fontsize=9, color=INK, loc="left")
    return figure


def _groups(y: NDArray, p: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Return mean prediction, observed share and half the 95 % interval in groups of equal size, ties together."""
    edges = np.unique(np.quantile(p, np.linspace(0, 1, GROUPS + 1))) if len(p) else np.array([0.0, 1.0])
    group = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, max(len(edges) - 2, 0))
    n = np.bincount(group)
    kept = n > 0
    predicted = np.bincount(group, p)[kept] / n[kept]
    observed = np.bincount(group, y)[kept] / n[kept]
    return predicted, observed, 1.96 * np.sqrt(observed * (1 - observed) / n[kept])


def _top_of_groups(y: NDArray, p: NDArray) -> float:
    predicted, observed, half = _groups(y, p)
    return float(max((observed + half).max(initial=0), predicted.max(initial=0)))


def _curve(y: NDArray, p: ArrayLike) -> tuple[NDArray, NDArray]:
    """Return recall and precision at every distinct score, highest first; starts at recall 0."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(-p, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(p[order])), len(p) - 1] if len(p) else np.array([], dtype=int)
    hits = np.cumsum(y[order])[last]
    precision = hits / (last + 1)
    return np.r_[0, hits / max(y.sum(), 1)], np.r_[precision[:1], precision]


def _average_precision(y: NDArray, p: ArrayLike) -> float:
    recall, precision = _curve(y, p)
    return float(np.sum(np.diff(recall) * precision[1:]))


def _finished(figure: Figure, all_axes: tuple[Axes, ...], title: str, y: NDArray) -> Figure:
    for axes in all_axes:
        _style(axes)
    share = f"{y.mean():.1%}" if len(y) else "no rows"
    figure.suptitle(title, fontsize=12, color=INK, x=0.02, ha="left")
    all_axes[0].set_title(f"n = {len(y):,}, {share} came true ({int(y.sum()):,})", fontsize=9, color=INK, loc="left")
    return figure


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
