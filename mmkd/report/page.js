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

// Charts.

const figures = JSON.parse(document.getElementById("figures").textContent);
const charts = [...document.querySelectorAll(".chart")];
const hiddenRuns = new Set();

function paintedTrace(trace) {
  const own = color(`run-${trace.meta.run}`);
  const painted = {
    ...trace,
    visible: !hiddenRuns.has(trace.meta.run),
    line: { ...trace.line, color: own },
    marker: { ...trace.marker, color: own },
    textfont: { color: color("ink") },
  };
  if (trace.type === "bar") {
    delete painted.line;
    painted.marker.pattern = { ...trace.marker.pattern, fgcolor: color("card"), bgcolor: own };
    painted.marker.line = { color: own, width: 1 };
  }
  for (const error of ["error_x", "error_y"]) {
    if (trace[error]) {
      painted[error] = { ...trace[error], color: trace.type === "bar" ? color("ink") : own };
    }
  }
  return painted;
}

function paintedLayout(layout) {
  const axis = (settings) => ({
    ...settings,
    title: { ...settings.title, standoff: 6 },
    gridcolor: color("line"),
    zerolinecolor: color("muted"),
    linecolor: color("line"),
  });
  return {
    ...layout,
    xaxis: axis(layout.xaxis),
    yaxis: axis(layout.yaxis),
    margin: { l: 8, r: 14, t: 14, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("ink") },
    hoverlabel: { bgcolor: color("card"), bordercolor: color("line"), font: { color: color("ink") } },
    // A finger on a chart scrolls the page.
    dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false,
  };
}

function draw(chart) {
  const { data, layout } = figures[chart.dataset.chart];
  const config = { responsive: true, displayModeBar: false };
  return Plotly.react(chart, data.map(paintedTrace), paintedLayout(layout), config);
}

// One after the other, so that the page can be read and scrolled meanwhile. A newer request, such
// as another theme, ends an older one.
let drawing = 0;
async function drawAll() {
  const own = ++drawing;
  document.documentElement.dataset.charts = "drawing";
  for (const chart of charts) {
    await draw(chart);
    await new Promise((resolve) => setTimeout(resolve));
    if (own !== drawing) return;
  }
  document.documentElement.dataset.charts = "drawn";
}

for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const run = Number(button.dataset.run);
    const shown = hiddenRuns.delete(run);
    if (!shown) hiddenRuns.add(run);
    for (const same of document.querySelectorAll(`.legend button[data-run="${run}"]`)) {
      same.setAttribute("aria-pressed", String(shown));
    }
    drawAll();
  });
}

// Theme.

const darkWished = matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.getElementById("theme");
const isDark = () =>
  (document.documentElement.dataset.theme ?? (darkWished.matches ? "dark" : "light")) === "dark";

function applyTheme() {
  themeButton.textContent = isDark() ? "Light" : "Dark";
  themeButton.setAttribute("aria-label", `${themeButton.textContent} theme`);
  drawAll();
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
