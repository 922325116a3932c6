// Runs before the first paint: no flash of the wrong theme, and tables closed only where a script
// can draw the charts.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const theme = localStorage.getItem("falaj-theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch {
    // Storage may be forbidden; the theme of the system is a good one.
  }
})();
