"""Draws the dashboard from a Prometheus, without Grafana, with the same panels and queries. Prints which panels have no
data.

    draw.py PICTURE.png [minutes] [http://localhost:9090]     needs matplotlib
"""

import json
import math
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

picture = sys.argv[1]
minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 5
prometheus = sys.argv[3] if len(sys.argv) > 3 else "http://localhost:9090"
now = time.time()
dashboard = json.loads((Path(__file__).parent / "dashboards/peerpigeon.json").read_text())


def ask(expr):
    expr = expr.replace("$namespace", ".*").replace("$job", "peerpigeon.*").replace("$instance", ".*").replace("$__rate_interval", "20s")
    query = urllib.parse.urlencode({"query": expr, "start": now - 60 * minutes, "end": now, "step": 5})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{query}", timeout=10) as answer:
        return json.load(answer)["data"]["result"]


def named(legend, labels):
    for label, value in labels.items():
        legend = legend.replace("{{%s}}" % label, value)
    return legend


def short(value, unit):
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return f"{value:.2g} s" if value >= 1 else f"{1000 * value:.3g} ms"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


rows, empty = [], []
for panel in dashboard["panels"]:
    if panel["type"] == "row":
        rows.append((panel["title"], []))
    else:
        rows[-1][1].append(panel)
plt.rcParams.update({"font.size": 6, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "axes.linewidth": 0.5})
lines = sum(math.ceil(len(panels) / (8 if panels[0]["type"] == "stat" else 4)) for _, panels in rows)
figure = plt.figure(figsize=(15, 1.75 * lines), dpi=75)
grid = figure.add_gridspec(lines, 8, hspace=0.65, wspace=0.45, left=0.04, right=0.99, top=0.975, bottom=0.015)
line = 0
for title, panels in rows:
    stats = panels[0]["type"] == "stat"
    for number, panel in enumerate(panels):
        width = 1 if stats else 2
        at, column = line + number * width // 8, number * width % 8
        axes = figure.add_subplot(grid[at, column : column + width])
        unit = panel["fieldConfig"]["defaults"]["unit"]
        series = [(named(t["legendFormat"], found["metric"]), found["values"]) for t in panel["targets"] for found in ask(t["expr"])]
        if not series:
            empty.append(panel["title"])
        if number == 0:
            axes.annotate(title, (0, 1.2), xycoords="axes fraction", fontsize=8, fontweight="bold", color="#555")
        axes.set_title(panel["title"], fontsize=7, loc="left")
        for label, values in series:
            x, y = [(float(when) - now) / 60 for when, _ in values], [float(value) for _, value in values]
            axes.plot(x, y, linewidth=0.8, label=label)
            if stats:
                axes.text(0.5, 0.5, short(y[-1], unit), transform=axes.transAxes, ha="center", va="center", fontsize=16, color="#2a7")
                axes.set_yticks([])
        if panel["fieldConfig"]["defaults"]["custom"].get("scaleDistribution") if not stats else False:
            axes.set_yscale("log")
        elif not stats:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(lambda value, _, unit=unit: short(value, unit))
        axes.set_xlim(-minutes, 0)
        if series and not stats:
            axes.legend(fontsize=4.5, loc="upper left", frameon=False, ncols=2)
    line += math.ceil(len(panels) * (1 if stats else 2) / 8)
figure.canvas.draw()
Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB").quantize(48).save(picture, optimize=True)
print(f"{picture}: {sum(len(panels) for _, panels in rows)} panels; without data: {', '.join(empty) or 'none'}")
