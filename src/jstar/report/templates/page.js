// Toggles, slider and sorting of the page; Plotly draws.
(function () {
  "use strict";
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const config = {responsive: true, displayModeBar: false};
  const shown = {};
  const slider = document.getElementById("sigma");
  const table = document.getElementById("laws");
  const body = table.tBodies[0];

  function draw(name, chart) {
    const data = chart.data.map(trace => ({...trace, visible: shown[trace.meta] !== false}));
    Plotly.react("plot-" + name, data, chart.layout, config);
  }

  function drawScale() {
    const charts = page.scales[slider.value].charts;
    for (const name in charts) draw(name, charts[name]);
    for (const row of body.rows) row.classList.toggle("shown", row.dataset.scale === slider.value);
    const row = body.querySelector("tr.shown");
    const sigma = row.cells[0].textContent;
    document.getElementById("sigma-label").textContent =
      (sigma === "total" ? "total loss" : "σ = " + sigma) + ": " + row.cells[1].textContent;
    document.getElementById("sigma-reason").textContent = row.title;
  }

  function drawAll() {
    for (const name in page.charts) draw(name, page.charts[name]);
    drawScale();
  }

  for (const box of document.querySelectorAll("input[data-law]")) {
    shown[box.dataset.law] = box.checked;
    box.addEventListener("change", () => {
      shown[box.dataset.law] = box.checked;
      for (const cell of table.querySelectorAll("[data-law=" + box.dataset.law + "]"))
        cell.hidden = !box.checked;
      drawAll();
    });
  }

  function sort(column, down) {
    // What has no number comes last, whichever way the rest is sorted.
    const key = row => row.cells[column].dataset.sort;
    const number = text => text === "inf" ? Infinity : Number(text);
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "" || x === "nan" || y === "nan")
        return (x === "" || x === "nan") - (y === "" || y === "nan");
      const [m, n] = [number(x), number(y)];
      const order = isNaN(m) || isNaN(n) ? x.localeCompare(y) : m < n ? -1 : m > n ? 1 : 0;
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
  }

  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      sort(column, down);
    });
  });

  body.addEventListener("click", event => {
    slider.value = event.target.closest("tr").dataset.scale;
    drawScale();
  });
  slider.addEventListener("input", drawScale);
  slider.value = page.first;
  drawAll();
})();
