// One picture, as large as the window.

const viewer = document.getElementById("viewer");
const part = (name) => document.getElementById(`viewer-${name}`);
const viewed = { picture: null, panel: 0 };

function view(picture, panel) {
  Object.assign(viewed, { picture, panel });
  const figures = [...picture.querySelectorAll("figure")];
  const place = chosen.indexOf(picture);
  part("title").textContent = picture.querySelector("h3").textContent;
  part("place").textContent = `${place + 1} of ${chosen.length}`;
  // Not disabled, which would lose the focus.
  part("previous").setAttribute("aria-disabled", String(place === 0));
  part("next").setAttribute("aria-disabled", String(place === chosen.length - 1));
  part("runs").replaceChildren(
    ...figures.map((figure, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = figure.querySelector("strong").textContent;
      button.setAttribute("aria-pressed", String(index === panel));
      button.addEventListener("click", () => show(index));
      return button;
    }),
  );
  showPanel(figures[panel], picture.querySelector("image"));
}

// The other run's boxes on the same part of the picture.
function show(panel) {
  const stage = part("stage");
  const { scrollLeft, scrollTop } = stage;
  view(viewed.picture, panel);
  stage.scrollTo(scrollLeft, scrollTop);
  part("runs").children[panel].focus();
}

function showPanel(figure, photo) {
  const canvas = figure.querySelector(".canvas").cloneNode(true);
  // The photo itself, whose name is that of the one in the page.
  canvas.querySelector("image, use")?.replaceWith(photo.cloneNode());
  canvas.querySelector("image")?.removeAttribute("id");
  const { width, height } = canvas.querySelector("svg").viewBox.baseVal;
  canvas.style.setProperty("--aspect", width / height);
  part("stage").replaceChildren(canvas);
  viewedSize.disconnect();
  viewedSize.observe(canvas);
}

const viewedSize = new ResizeObserver(([{ target }]) => {
  const hidden = writeLabels(target, true);
  const figure = viewed.picture.querySelectorAll("figure")[viewed.panel];
  const summary = figure.querySelector("figcaption span").textContent;
  const note = hidden === 1 ? "1 label has" : `${hidden} labels have`;
  part("summary").textContent = hidden ? `${summary}; ${note} no room at this size` : summary;
});

function zoom(isLarge, x = 0.5, y = 0.5) {
  const stage = part("stage");
  stage.classList.toggle("zoomed", isLarge);
  part("zoom").setAttribute("aria-pressed", String(isLarge));
  part("zoom").textContent = isLarge ? "Zoom out" : "Zoom in";
  stage.scrollTo(
    x * stage.scrollWidth - stage.clientWidth / 2,
    y * stage.scrollHeight - stage.clientHeight / 2,
  );
}

const isZoomed = () => part("stage").classList.contains("zoomed");

function step(by) {
  const next = chosen[chosen.indexOf(viewed.picture) + by];
  if (!next) return;
  zoom(false);
  view(next, viewed.panel);
}

function openViewer(picture, panel) {
  view(picture, panel);
  viewer.showModal();
  zoom(false);
  part("runs").children[panel].focus();
}

if (gallery) {
  for (const picture of pictures) {
    picture.querySelector(".enlarge").addEventListener("click", () => openViewer(picture, 0));
    [...picture.querySelectorAll(".canvas")].forEach((canvas, panel) => {
      canvas.addEventListener("click", () => {
        // Where the focus returns to.
        picture.querySelector(".enlarge").focus({ preventScroll: true });
        openViewer(picture, panel);
      });
    });
  }
  part("close").addEventListener("click", () => viewer.close());
  part("previous").addEventListener("click", () => step(-1));
  part("next").addEventListener("click", () => step(1));
  part("zoom").addEventListener("click", () => zoom(!isZoomed()));
  part("stage").addEventListener("click", ({ target, clientX, clientY }) => {
    const canvas = target.closest(".canvas");
    if (!canvas) return viewer.close();
    const box = canvas.getBoundingClientRect();
    zoom(!isZoomed(), (clientX - box.left) / box.width, (clientY - box.top) / box.height);
  });
  viewer.addEventListener("click", ({ target }) => {
    if (target === viewer) viewer.close();
  });
  viewer.addEventListener("keydown", ({ key, target }) => {
    // In a zoomed picture the arrows scroll.
    if (target === part("stage") && isZoomed()) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[key];
    const panel = viewed.panel + by;
    if (by && part("runs").children[panel]) show(panel);
  });
}
