// Gallery.

const pictures = [...document.querySelectorAll(".picture")];
const gallery = document.querySelector(".gallery");
const more = document.getElementById("more");
// Those that the filters choose, and how many of them are shown.
let chosen = pictures;
let shownPictures = Number(gallery?.dataset.first);

function chosenPictures() {
  const category = document.getElementById("filter-class").value;
  const kind = document.getElementById("filter-kind").value;
  const fits = (box) => {
    const [of, type] = box.split(":");
    return (category === "" || of === category) && (kind === "" || type === kind);
  };
  for (const mark of gallery.querySelectorAll(".mark")) {
    mark.classList.toggle("faded", !fits(mark.dataset.box));
  }
  return pictures.filter((picture) => picture.dataset.boxes.split(" ").some(fits));
}

function showPictures() {
  chosen = chosenPictures();
  const shown = new Set(chosen.slice(0, shownPictures));
  for (const picture of pictures) picture.hidden = !shown.has(picture);
  for (const canvas of gallery.querySelectorAll(".canvas")) writeLabels(canvas, false);
  const left = chosen.length - shown.size;
  const all = `${chosen.length} of ${pictures.length} images`;
  document.getElementById("shown").textContent = left ? `${all}, the first ${shown.size} shown` : all;
  more.hidden = !left;
  more.textContent = `Show ${Math.min(left, Number(gallery.dataset.step))} more images`;
}

function showMore() {
  const next = pictures.filter((picture) => !picture.hidden).length;
  shownPictures += Number(gallery.dataset.step);
  showPictures();
  // Go on where the button was.
  pictures.filter((picture) => !picture.hidden)[next].querySelector("button").focus();
}

if (gallery) {
  const filters = document.getElementById("filters");
  filters.addEventListener("change", () => {
    shownPictures = Number(gallery.dataset.first);
    showPictures();
  });
  filters.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", showMore);
  showPictures();
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) writeLabels(target, false);
  });
  for (const canvas of gallery.querySelectorAll(".canvas")) sizes.observe(canvas);
}
