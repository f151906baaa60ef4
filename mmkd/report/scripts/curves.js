// Curves.

const curves = JSON.parse(document.getElementById("curves").textContent);
const hiddenRuns = new Set();
const charts = new Map();

// Points of the run's own shape, as in the legend.
function markerPaths(shape) {
  const path = new Path2D(shape);
  return (chart, index, first, last) => {
    const [x, y] = [chart.data[0], chart.data[index]];
    const drawn = new Path2D();
    const scale = 3.2 * uPlot.pxRatio;
    for (let i = first; i <= last; i++) {
      if (y[i] == null) continue;
      const [left, top] = [chart.valToPos(x[i], "x", true), chart.valToPos(y[i], "y", true)];
      drawn.addPath(path, new DOMMatrix([scale, 0, 0, scale, left, top]));
    }
    return { fill: drawn };
  };
}

function seriesOf(line) {
  const { dash, marker, few } = curves.runs[line.run];
  const own = () => color(`run-${line.run}`);
  return {
    label: line.name,
    run: line.run,
    show: !hiddenRuns.has(line.run),
    stroke: own,
    width: 1.5,
    dash,
    // Other runs have their points at other steps.
    spanGaps: true,
    points: { show: line.x.length <= few, paths: markerPaths(marker), fill: own },
  };
}

function tick(value) {
  if (value == null) return "";
  const size = Math.abs(value);
  if (size && (size < 1e-3 || size >= 1e6)) return value.toExponential().replace("-", "−");
  return String(Number(value.toPrecision(6))).replace("-", "−");
}

// Steps are whole: 1, 2, 5, 10 and so on.
const wholeSteps = [...Array(30).keys()].map((i) => [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3));

function axis(label) {
  return {
    ...(label ? { incrs: wholeSteps } : {}),
    label,
    labelSize: label ? 18 : 0,
    labelGap: 0,
    size: label ? 30 : (chart, ticks) => 16 + 7 * Math.max(1, ...(ticks ?? []).map((t) => t.length)),
    values: (chart, ticks) => ticks.map(tick),
    font: `12px ${getComputedStyle(document.body).fontFamily}`,
    labelFont: `12px ${getComputedStyle(document.body).fontFamily}`,
    stroke: () => color("ink"),
    grid: { stroke: () => color("line"), width: 1 },
    ticks: { stroke: () => color("line"), width: 1, size: 4 },
  };
}

// Lines have points at steps of their own: each is read at the one that is nearest, and only
// where it goes on to both sides.
function nearest(chart, index, hovered) {
  const values = chart.data[index];
  const seek = (from, by) => {
    let i = from;
    while (i >= 0 && i < values.length && values[i] == null) i += by;
    return values[i] == null ? null : i;
  };
  const [before, after] = [seek(hovered, -1), seek(hovered, 1)];
  if (before === null || after === null) return null;
  return hovered - before <= after - hovered ? before : after;
}

function showReadout(chart, readout, step) {
  const { idx, left } = chart.cursor;
  readout.hidden = idx == null || left < 0;
  if (readout.hidden) return;
  const texts = [document.createElement("strong")];
  texts[0].textContent = `${step} ${tick(chart.data[0][idx])}`;
  chart.series.forEach((series, index) => {
    const at = chart.cursor.idxs[index];
    if (!index || !series.show || at == null) return;
    const text = document.createElement("div");
    text.dataset.run = series.run;
    text.textContent = `${series.label}: ${tick(Number(chart.data[index][at].toPrecision(4)))}`;
    texts.push(text);
  });
  readout.replaceChildren(...texts);
  // On the other side than the pointer.
  const isLeft = left < chart.over.clientWidth / 2;
  readout.style.left = isLeft ? "auto" : "4px";
  readout.style.right = isLeft ? "4px" : "auto";
}

function drawCurves(holder) {
  const { step, lines } = curves.charts[holder.dataset.chart];
  const readout = document.createElement("div");
  readout.className = "readout";
  readout.hidden = true;
  const canDrag = matchMedia("(pointer: fine)").matches;
  const options = {
    width: holder.clientWidth,
    height: holder.clientHeight,
    legend: { show: false },
    // A finger on a chart scrolls the page.
    cursor: { y: false, drag: { x: canDrag, y: false }, dataIdx: nearest },
    scales: {
      x: { time: false },
      y: { range: (chart, low, high) => uPlot.rangeNum(Math.min(low, 0), Math.max(high, 0), 0.05, true) },
    },
    axes: [axis(step), axis()],
    series: [{}, ...lines.map(seriesOf)],
    hooks: { setCursor: [(chart) => showReadout(chart, readout, step)] },
  };
  const chart = new uPlot(options, uPlot.join(lines.map((line) => [line.x, line.y])), holder);
  holder.append(readout);
  charts.set(holder.dataset.chart, chart);
}

const holders = [...document.querySelectorAll(".chart")];
const widths = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const chart = charts.get(target.dataset.chart);
    // In a part that is closed, a chart is drawn when it is opened.
    if (!contentRect.width) continue;
    if (chart) chart.setSize({ width: contentRect.width, height: contentRect.height });
    else drawCurves(target);
  }
});

// One after the other, so that the page can be read and scrolled meanwhile.
async function drawAll() {
  for (const holder of holders) {
    if (holder.checkVisibility()) drawCurves(holder);
    widths.observe(holder);
    await new Promise((resolve) => setTimeout(resolve));
  }
  document.documentElement.dataset.charts = "drawn";
}

function toggleRun(run) {
  const isShown = hiddenRuns.delete(run);
  if (!isShown) hiddenRuns.add(run);
  for (const same of document.querySelectorAll(`.legend button[data-run="${run}"]`)) {
    same.setAttribute("aria-pressed", String(isShown));
  }
  for (const drawn of document.querySelectorAll(`.figure [data-run="${run}"]`)) {
    drawn.classList.toggle("off", !isShown);
  }
  for (const chart of charts.values()) {
    chart.series.forEach((series, index) => {
      if (index && series.run === run) chart.setSeries(index, { show: isShown });
    });
  }
}

for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => toggleRun(Number(button.dataset.run)));
}

document.addEventListener("themechange", () => {
  for (const chart of charts.values()) chart.redraw(false);
});
drawAll();
