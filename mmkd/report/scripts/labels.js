// Labels of boxes.

function sharedArea(one, other) {
  const width = Math.min(one.x + one.width, other.x + other.width) - Math.max(one.x, other.x);
  const height = Math.min(one.y + one.height, other.y + other.height) - Math.max(one.y, other.y);
  return width > 0 && height > 0 ? width * height : 0;
}

// Where a label may lie at its box: along the upper and the lower side, without and within, and
// beside it; never beyond the picture.
function labelPlaces(box, size, extent) {
  if (size.width > extent.width || size.height > extent.height) return [];
  const shares = [0, 0.25, 0.5, 0.75, 1];
  const below = box.y + box.height;
  const places = [box.y - size.height, below, box.y, below - size.height].flatMap((y) =>
    shares.map((share) => ({ x: box.x + share * (box.width - size.width), y })),
  );
  for (const x of [box.x + box.width, box.x - size.width]) {
    for (const share of shares) places.push({ x, y: box.y + share * (box.height - size.height) });
  }
  const within = (value, end) => Math.min(Math.max(value, 0), end);
  return places.map(({ x, y }) => ({
    x: within(x, extent.width - size.width),
    y: within(y, extent.height - size.height),
    ...size,
  }));
}

// A place for each label, so that no two overlap; null where none is left. Earlier labels choose
// first, and choose the place that covers least of the boxes. All is in one unit of length.
function placeLabels(boxes, sizes, extent) {
  const taken = [];
  return boxes.map((own, index) => {
    let best = null;
    let least = Infinity;
    for (const place of labelPlaces(own, sizes[index], extent)) {
      if (taken.some((other) => sharedArea(place, other) > 0)) continue;
      const covered = boxes.reduce((sum, box) => sum + sharedArea(place, box), 0);
      if (covered < least) [best, least] = [place, covered];
    }
    if (best) taken.push(best);
    return best;
  });
}

const errorKinds = new Set(["classification", "localisation", "both", "duplicate", "background"]);

// Of the errors in a small picture, of all boxes in a large one. Errors choose their place first:
// they are drawn last, so that they are seen.
function labelledMarks(canvas, isLarge) {
  const marks = [...canvas.querySelectorAll(".mark:not(.faded)")].reverse();
  return isLarge ? marks : marks.filter((mark) => errorKinds.has(markKind(mark)));
}

function markKind(mark) {
  return mark.dataset.box.split(":")[1];
}

function newLabel(mark, isLarge) {
  const kind = markKind(mark);
  const label = document.createElement("span");
  label.className = `label ${kind}`;
  label.textContent = mark.dataset.label;
  if (isLarge && errorKinds.has(kind)) label.textContent += ` · ${kind}`;
  return label;
}

// Of a box, as far as it is in the picture.
function placeInPicture(mark, frame) {
  const box = mark.querySelector(".box").getBoundingClientRect();
  const across = (value) => Math.min(Math.max(value - frame.left, 0), frame.width);
  const down = (value) => Math.min(Math.max(value - frame.top, 0), frame.height);
  const [x, y] = [across(box.left), down(box.top)];
  return { x, y, width: across(box.right) - x, height: down(box.bottom) - y };
}

// As many labels as leave most of a small picture to be seen.
function affordable(sizes, frame) {
  let room = 0.2 * frame.width * frame.height;
  return sizes.filter(({ width, height }) => (room -= width * height) >= 0).length;
}

// Writes the labels on a picture, and returns how many found no place.
function writeLabels(canvas, isLarge) {
  canvas.querySelector(".labels")?.remove();
  const frame = canvas.getBoundingClientRect();
  if (!frame.width) return 0;
  const layer = document.createElement("div");
  layer.className = "labels";
  layer.ariaHidden = "true";
  const marks = labelledMarks(canvas, isLarge);
  const labels = marks.map((mark) => newLabel(mark, isLarge));
  layer.append(...labels);
  canvas.append(layer);
  const boxes = marks.map((mark) => placeInPicture(mark, frame));
  // A gap of a pixel.
  const sizes = labels.map((label) => {
    const { width, height } = label.getBoundingClientRect();
    return { width: width + 1, height: height + 1 };
  });
  const count = isLarge ? sizes.length : affordable(sizes, frame);
  const places = placeLabels(boxes.slice(0, count), sizes, frame);
  labels.forEach((label, index) => {
    const place = places[index];
    if (place) label.style.translate = `${place.x}px ${place.y}px`;
    else label.remove();
  });
  return places.filter((place) => !place).length;
}
