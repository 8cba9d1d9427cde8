// Draws the recorded figures in the page's own colours, and again when the reader switches between light and dark.
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);

  function coloured(layout) {
    const page = getComputedStyle(document.documentElement);
    const colour = (name) => page.getPropertyValue(name).trim();
    const result = structuredClone(layout);
    const house = result.template.layout;
    house.font.color = colour("--ink");
    Object.assign(house.hoverlabel, { bgcolor: colour("--raised"), font: { color: colour("--ink") } });
    for (const axis of [house.xaxis, house.yaxis]) {
      Object.assign(axis, { color: colour("--quiet"), gridcolor: colour("--line") });
    }
    return result;
  }

  function draw() {
    for (const place of document.querySelectorAll("[data-figure]")) {
      const { data, layout } = figures[place.dataset.figure];
      Plotly.react(place, data, coloured(layout), { responsive: true, displayModeBar: false });
    }
  }

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
