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

// Of a long table the first rows are shown, in whatever order they are.
for (const button of document.querySelectorAll(".expand")) {
  const table = button.closest(".table-frame").querySelector("table");
  const all = button.textContent;
  const show = (isWhole) => {
    table.classList.toggle("short", !isWhole);
    button.setAttribute("aria-expanded", String(isWhole));
    button.textContent = isWhole ? "Show fewer rows" : all;
  };
  button.addEventListener("click", () => show(button.getAttribute("aria-expanded") === "false"));
  button.hidden = false;
  show(false);
}

// A table that is wider than its place says on which side it goes on.
function markEnds(holder) {
  const rest = holder.scrollWidth - holder.clientWidth - holder.scrollLeft;
  holder.parentElement.classList.toggle("more-left", holder.scrollLeft > 1);
  holder.parentElement.classList.toggle("more-right", rest > 1);
}

const tableSizes = new ResizeObserver((entries) => {
  for (const { target } of entries) markEnds(target.closest(".table-scroll"));
});
for (const holder of document.querySelectorAll(".table-scroll")) {
  holder.addEventListener("scroll", () => markEnds(holder), { passive: true });
  tableSizes.observe(holder);
  tableSizes.observe(holder.firstElementChild);
}
