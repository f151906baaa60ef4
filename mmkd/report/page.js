"use strict";

// Colours come from the style sheet: an element takes them on, so that what depends on the theme
// is resolved.
const probe = document.createElement("span");
probe.hidden = true;
document.body.append(probe);
function color(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

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
    if (chart && contentRect.width) {
      chart.setSize({ width: contentRect.width, height: contentRect.height });
    }
  }
});

// One after the other, so that the page can be read and scrolled meanwhile.
async function drawAll() {
  for (const holder of holders) {
    drawCurves(holder);
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

// Theme.

const darkWished = matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.getElementById("theme");
const isDark = () =>
  (document.documentElement.dataset.theme ?? (darkWished.matches ? "dark" : "light")) === "dark";

function applyTheme() {
  themeButton.textContent = isDark() ? "Light" : "Dark";
  themeButton.setAttribute("aria-label", `${themeButton.textContent} theme`);
  for (const chart of charts.values()) chart.redraw(false);
}
themeButton.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  applyTheme();
});
darkWished.addEventListener("change", applyTheme);

// Tables.

function sortKey(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value === undefined) return cell.textContent.trim();
  const value = Number(cell.dataset.value);
  return Number.isNaN(value) ? null : value;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortBy(heading) {
  const table = heading.closest("table");
  const body = table.tBodies[0];
  const keys = new Map([...body.rows].map((row) => [row, sortKey(row, heading.cellIndex)]));
  const numeric = [...keys.values()].some((key) => typeof key === "number");
  // Numbers begin with the largest, which is what one looks for.
  const first = numeric ? "descending" : "ascending";
  const second = numeric ? "ascending" : "descending";
  const order = heading.getAttribute("aria-sort") === first ? second : first;
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...body.rows].sort((one, other) => {
    const [a, b] = [keys.get(one), keys.get(other)];
    // What has no value stays at the end.
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * compare(a, b);
  });
  body.append(...rows);
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", order);
}

for (const heading of document.querySelectorAll("thead th")) {
  heading.firstElementChild.addEventListener("click", () => sortBy(heading));
}

// Gallery.

const pictures = [...document.querySelectorAll(".picture")];
const gallery = document.querySelector(".gallery");
const more = document.getElementById("more");

function filterPictures() {
  const category = document.getElementById("filter-class").value;
  const kind = document.getElementById("filter-kind").value;
  const fits = (box) => {
    const [of, type] = box.split(":");
    return (category === "" || of === category) && (kind === "" || type === kind);
  };
  const found = pictures.filter((picture) => picture.dataset.boxes.split(" ").some(fits));
  const limit = gallery.dataset.all ? found.length : Number(gallery.dataset.first);
  const shown = new Set(found.slice(0, limit));
  for (const picture of pictures) {
    picture.hidden = !shown.has(picture);
    for (const mark of picture.querySelectorAll(".mark")) {
      mark.classList.toggle("faded", !fits(mark.dataset.box));
    }
  }
  document.getElementById("shown").textContent = `${found.length} of ${pictures.length} images`;
  more.hidden = found.length <= limit;
  more.textContent = `Show all ${found.length}`;
}

if (pictures.length) {
  const filters = document.getElementById("filters");
  filters.addEventListener("change", filterPictures);
  filters.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const next = pictures.filter((picture) => !picture.hidden).length;
    gallery.dataset.all = "true";
    filterPictures();
    // The button is gone: go on where it was.
    pictures.filter((picture) => !picture.hidden)[next].querySelector("button").focus();
  });
  filterPictures();
  const labels = document.getElementById("all-labels");
  labels.addEventListener("change", () => {
    gallery.classList.toggle("labelled", labels.checked);
  });
  for (const button of document.querySelectorAll(".enlarge")) {
    button.addEventListener("click", () => {
      const large = button.closest(".picture").classList.toggle("large");
      button.setAttribute("aria-pressed", String(large));
    });
  }
  // Letters are of one size on the screen, whatever the image's.
  const sizes = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      if (contentRect.width) {
        const pixel = target.viewBox.baseVal.width / contentRect.width;
        target.style.setProperty("--pixel", String(pixel));
      }
    }
  });
  for (const image of document.querySelectorAll(".boxes")) sizes.observe(image);
}

applyTheme();
drawAll();
