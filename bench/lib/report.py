"""What a subject writes to build/bench: SUBJECT.md as it is printed, raw numbers as CSV, plots."""

import csv
import os

import matplotlib

from support import BUILD

matplotlib.use("Agg")
# Text stays text and ids stay the same, so that a new plot differs only in its data.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "libmcpool", "font.size": 9,
                            "axes.spines.top": False, "axes.spines.right": False})
from matplotlib import pyplot

HEADLINES = ["ratio", "measured", "quartiles", "goal"]
FOLDER = os.path.abspath(os.path.join(BUILD, "bench"))


def number(value):
    """The number with as many digits as are significant."""
    if value == 0:
        return "0"
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def quartiles(spread, digits=None):
    """Two cells: the median and its quartiles, with DIGITS after the point or as many as say
    something."""
    median, low, high = (number(value) if digits is None else f"{value:.{digits}f}"
                         for value in spread)
    return [median, f"{low}–{high}"]


class Report:
    """The report of one subject, printed as it grows."""

    def __init__(self, subject, title):
        self.subject = subject
        self.parts = []
        self.headlines = []
        os.makedirs(FOLDER, exist_ok=True)
        self.say(f"## {title}")

    def say(self, text):
        print(text + "\n", flush=True)
        self.parts.append(text)

    def table(self, header, rows):
        """ROWS of cells that are text already; the first column is of names."""
        cells = [list(map(str, row)) for row in [header, *rows]]
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = ["| " + " | ".join([row[0].ljust(widths[0]),
                                    *(cell.rjust(width)
                                      for cell, width in zip(row[1:], widths[1:]))]) + " |"
                 for row in cells]
        rule = "|" + "|".join(["-" * (widths[0] + 2),
                               *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
        self.say("\n".join([lines[0], rule, *lines[1:]]))

    def raw(self, name, header, rows):
        """The numbers themselves, in NAME.csv."""
        with open(os.path.join(FOLDER, f"{name}.csv"), "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)

    def raw_rounds(self, name, results):
        """Those of interleaved(): a line for each round."""
        self.raw(name, ["round", *results],
                 [[number, *row] for number, row in enumerate(zip(*results.values()))])

    def headline(self, what, spread, goal="", digits=2):
        """A line for the README: what was wanted and what it is."""
        self.headlines.append([what, *quartiles(spread, digits), goal])

    def bars(self, name, title, spreads, unit):
        """A plot of bars with their quartiles; SPREADS is label -> Spread."""
        figure, axes = pyplot.subplots(figsize=(6.4, 0.6 + 0.36 * len(spreads)))
        labels = list(spreads)[::-1]
        medians = [spreads[label].median for label in labels]
        errors = [[spreads[label].median - spreads[label].low for label in labels],
                  [spreads[label].high - spreads[label].median for label in labels]]
        axes.barh(labels, medians, xerr=errors, color="#5b8db8", ecolor="#333333", capsize=2)
        for row, value in enumerate(medians):
            axes.annotate(number(value), (errors[1][row] + value, row), (4, 0),
                          textcoords="offset points", va="center")
        axes.margins(x=0.12)
        axes.set_xlabel(unit)
        self._save(figure, name, title)

    def lines(self, name, title, lines, x_label, y_label, log=True):
        """A plot of lines, over a logarithmic axis if LOG; LINES is label -> {x: Spread}."""
        figure, axes = pyplot.subplots(figsize=(6.4, 3.2))
        for label, points in lines.items():
            places = list(points)
            drawn, = axes.plot(places, [points[x].median for x in places], marker="o",
                               markersize=3, label=label)
            axes.fill_between(places, [points[x].low for x in places],
                              [points[x].high for x in places], color=drawn.get_color(), alpha=0.2,
                              linewidth=0)
        if log:
            places = sorted({x for points in lines.values() for x in points})
            axes.set_xscale("log" if places[0] > 0 else "symlog", **(
                {} if places[0] > 0 else {"linthresh": places[1]}))
            axes.set_xticks(places, [f"{x:,}" for x in places])
            axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend(frameon=False)
        self._save(figure, name, title)

    def _save(self, figure, name, title):
        figure.suptitle(title, x=0.01, horizontalalignment="left", fontsize=10)
        figure.tight_layout()
        for kind, metadata in (("svg", {"Date": None}), ("png", {})):
            figure.savefig(os.path.join(FOLDER, f"{name}.{kind}"), metadata=metadata, dpi=150)
        pyplot.close(figure)
        self.say(f"![{title}](plots/{name}.svg)")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            with open(os.path.join(FOLDER, f"{self.subject}.md"), "w", encoding="utf-8") as file:
                file.write("\n\n".join(self.parts) + "\n")
            self.raw(f"{self.subject}.headlines", HEADLINES, self.headlines)
