// The page itself: its theme, its keys, and help.

const help = document.getElementById("help");
const theme = document.getElementById("theme");
const darkNow = () =>
  (document.documentElement.style.colorScheme ||
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function wear(scheme) {
  document.documentElement.style.colorScheme = scheme;
  theme.textContent = darkNow() ? "Light" : "Dark";
  theme.setAttribute("aria-label", `Change to ${darkNow() ? "light" : "dark"} colours`);
}

function remembered(scheme) {
  try {
    if (scheme) localStorage.setItem("hookmap-theme", scheme);
    return localStorage.getItem("hookmap-theme") ?? "";
  } catch {
    return ""; // a page that is opened as a file may have no storage
  }
}

const turn = () => wear(remembered(darkNow() ? "light" : "dark") || (darkNow() ? "light" : "dark"));
wear(remembered());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  wear(document.documentElement.style.colorScheme),
);
theme.addEventListener("click", turn);
document.getElementById("keys").addEventListener("click", () => help.showModal());
help.querySelector("button").addEventListener("click", () => help.close());
closedOutside(help);

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=search], select, textarea");
  if (event.key === "Escape" && event.target === gallery.search) return gallery.search.blur();
  if (typing || event.altKey || event.ctrlKey || event.metaKey) return undefined;
  const open = document.querySelector("dialog[open]");
  const actions = {
    t: turn,
    h: () => gallery.opacity(gallery.heat() ? 0 : 100),
    "?": () => (open ? null : help.showModal()),
    "/": () => (open ? null : gallery.search.focus()),
    n: () => (open ? null : gallery.step(1)),
    p: () => (open ? null : gallery.step(-1)),
  };
  if (!actions[event.key]) return undefined;
  event.preventDefault();
  return actions[event.key]();
});

document.documentElement.dataset.ready = "yes";
