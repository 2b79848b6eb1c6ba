"use strict";
const every = (selector) => [...document.querySelectorAll(selector)];

// A series that is switched off is hidden wherever it is drawn.
for (const box of every("input[data-series]")) {
  box.addEventListener("change", () => document.body.classList.toggle(`without-${box.dataset.series}`, !box.checked));
}

// Tasks whose names hold all of the words.
const filter = document.getElementById("filter");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/);
  for (const task of every(".task")) {
    task.hidden = !words.every((word) => task.dataset.title.toLowerCase().includes(word));
  }
  document.getElementById("found").textContent =
    `${every("figure.task:not([hidden])").length} of ${every("figure.task").length}`;
});

const dark = matchMedia("(prefers-color-scheme: dark)");
document.getElementById("theme").addEventListener("click", () => {
  const now = document.documentElement.style.colorScheme || (dark.matches ? "dark" : "light");
  document.documentElement.style.colorScheme = now === "dark" ? "light" : "dark";
});

// Below a figure, what its curves are at the place that is pointed to.
const words = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });
for (const figure of every("figure")) {
  const { left, right, from, to, unit, curves } = JSON.parse(figure.dataset.points);
  const [drawing, output] = [figure.querySelector("svg"), figure.querySelector("output")];
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const x = from + ((event.clientX - box.left) / box.width - left) / (right - left) * (to - from);
    const told = [];
    for (const curve of curves) {
      if (document.body.classList.contains(`without-${curve.series}`)) continue;
      const nearest = curve.points.reduce((best, one) => (Math.abs(one[0] - x) < Math.abs(best[0] - x) ? one : best));
      told.push(`${curve.label} ${words(nearest[1])}`);
    }
    if (told.length) output.textContent = `at ${words(x)} ${unit}: ${told.join(", ")}`;
  });
  drawing.addEventListener("pointerleave", () => { output.textContent = ""; });
}
