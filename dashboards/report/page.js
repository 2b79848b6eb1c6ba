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

// Below a figure, what its curves are at the place that is pointed to, by mouse, finger or arrow keys.
const words = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });
for (const figure of every("figure")) {
  const [drawing, output] = [figure.querySelector("svg"), figure.querySelector("output")];
  drawing.setAttribute("aria-label", figure.dataset.title);
  let parsed, place;
  const tell = (share) => {
    parsed ??= JSON.parse(figure.dataset.points);
    const { left, right, from, to, unit, curves } = parsed;
    place = Math.min(right, Math.max(left, share));
    const x = from + (place - left) / (right - left) * (to - from);
    const told = [];
    for (const { series, label, points } of curves) {
      if (document.body.classList.contains(`without-${series}`)) continue;
      if (x < points[0][0] || x > points.at(-1)[0]) continue;
      const nearest = points.reduce((best, one) => (Math.abs(one[0] - x) < Math.abs(best[0] - x) ? one : best));
      told.push(`${label} ${words(nearest[1])}`);
    }
    output.textContent = `at ${words(x)} ${unit}: ${told.join(", ") || "nothing"}`;
  };
  const pointed = (event) => {
    const box = drawing.getBoundingClientRect();
    tell((event.clientX - box.left) / box.width);
  };
  drawing.addEventListener("pointermove", pointed);
  drawing.addEventListener("pointerdown", pointed);
  drawing.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") output.textContent = ""; });
  drawing.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
    if (!step) return;
    event.preventDefault();
    tell((place ?? 0.5) + step);
  });
}
