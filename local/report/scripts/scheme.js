// Light or dark: as the system says until the reader chooses; the choice is kept where it can be.
(function () {
  const button = document.getElementById("scheme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  let chosen = Canopy.kept("canopy-scheme");
  function show() {
    const dark = chosen ? chosen === "dark" : system.matches;
    if (chosen) root.dataset.scheme = chosen;
    else delete root.dataset.scheme;
    button.textContent = dark ? "Light colours" : "Dark colours";
    return dark;
  }
  button.hidden = false;
  button.addEventListener("click", () => {
    chosen = show() ? "light" : "dark";
    Canopy.keep("canopy-scheme", chosen);
    show();
  });
  system.addEventListener("change", show);
  show();
})();
