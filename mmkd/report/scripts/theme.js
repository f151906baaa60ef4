// Colours come from the style sheet: an element takes them on, so that what depends on the theme
// is resolved.
const probe = document.createElement("span");
probe.hidden = true;
document.body.append(probe);
function color(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

// What works by scripts only is hidden without them.
for (const element of document.querySelectorAll(".live")) element.hidden = false;

// Theme.

const darkWished = matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.getElementById("theme");
const isDark = () =>
  (document.documentElement.dataset.theme ?? (darkWished.matches ? "dark" : "light")) === "dark";

function applyTheme() {
  themeButton.textContent = isDark() ? "Light" : "Dark";
  themeButton.setAttribute("aria-label", `${themeButton.textContent} theme`);
  document.dispatchEvent(new Event("themechange"));
}
themeButton.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  applyTheme();
});
darkWished.addEventListener("change", applyTheme);
applyTheme();
