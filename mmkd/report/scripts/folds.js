// Parts of sections.

const folds = [...document.querySelectorAll(".fold")];

// A phone begins with what is the key to each section; the rest is one touch away.
if (matchMedia("(max-width: 40rem)").matches) {
  for (const fold of folds) fold.open = fold.classList.contains("key");
}

addEventListener("beforeprint", () => {
  for (const fold of folds) fold.open = true;
});
