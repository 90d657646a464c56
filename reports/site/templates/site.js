// Sorting, filtering, comparing, curves and the theme. Without it every page still shows everything.
"use strict";

const SCALE = { k: 1e3, M: 1e6, G: 1e9 };

function number(text) {
  const found = /^([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s?([kMG])?(?![\w])/.exec(text.trim());
  return found ? Number(found[1]) * (SCALE[found[2]] || 1) : NaN;
}

function compare(a, b) {
  if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1);
  const x = number(a), y = number(b);
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en") : x - y;
}

function sort(table, column, head) {
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const text = (row) => row.children[column].textContent.trim();
  const empty = (row) => (text(row) ? 0 : 1);
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((a, b) => empty(a) - empty(b) || (down ? -1 : 1) * compare(text(a), text(b)));
  body.append(...rows);
}

function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column, head));
    head.append(button);
  });
  for (const cell of table.tBodies[0].querySelectorAll("td, th")) {
    if (cell.textContent.trim().length > 44) cell.classList.add("long");
  }
}

function show() {
  const wanted = (document.querySelector(".filter input")?.value || "").toLowerCase().split(/\s+/).filter(Boolean);
  const pair = [...document.querySelectorAll("#pair select")].map((select) => select.value).filter(Boolean);
  let shown = 0, all = 0;
  for (const row of document.querySelectorAll("table.data tbody tr")) {
    const text = row.textContent.toLowerCase();
    const both = [row.children[2]?.textContent.trim(), row.children[3]?.textContent.trim()];
    const fits = wanted.every((word) => text.includes(word)) && pair.every((name) => both.includes(name));
    row.hidden = !fits;
    shown += fits;
    all += 1;
  }
  const count = document.querySelector(".filter output");
  if (count) count.textContent = `${shown} of ${all} rows`;
}

function filter(place) {
  const label = document.createElement("label"), input = document.createElement("input");
  input.type = "search";
  label.append("Filter rows ", input);
  input.addEventListener("input", show);
  place.append(label, document.createElement("output"));
  show();
}

function draw(figure) {
  const made = JSON.parse(figure.querySelector("script").textContent), at = Number(figure.querySelector("select").value);
  const style = getComputedStyle(document.documentElement), ink = style.getPropertyValue("--ink").trim();
  const names = [...new Set(made.points.map((point) => point.method))];
  const symbols = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "pentagon"];
  const traces = names.map((name, i) => {
    const own = made.points.filter((point) => point.method === name && point.costs[at] !== null);
    return {
      type: "scatter", mode: "markers", name,
      x: own.map((point) => point.costs[at]), y: own.map((point) => point.mean),
      error_y: { type: "data", array: own.map((point) => point.half), visible: true },
      text: own.map((point) => `${point.asked || "dense"}, ${point.n} seeds`),
      marker: { size: own.some((point) => point.dense) ? 13 : 9, symbol: own.some((point) => point.dense) ? "star" : symbols[i % symbols.length] },
    };
  });
  const front = made.fronts[at];
  traces.unshift({
    type: "scatter", mode: "lines", name: "Pareto front", x: front.map((p) => p[0]), y: front.map((p) => p[1]),
    line: { shape: "hv", color: style.getPropertyValue("--soft").trim(), width: 1 }, hoverinfo: "skip",
  });
  const grid = style.getPropertyValue("--line").trim();
  const narrow = window.matchMedia("(max-width: 40rem)").matches;
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink }, margin: { t: 10, r: 10 },
    xaxis: { title: { text: made.axes[at] }, gridcolor: grid, zeroline: false },
    yaxis: { title: { text: made.metric }, gridcolor: grid, zeroline: false },
    legend: narrow ? { orientation: "h", y: -0.25 } : {},
  };
  const plot = figure.querySelector(".plot");
  if (narrow) plot.style.height = `${20 + 1.4 * names.length}rem`;
  Plotly.react(plot, traces, layout, { responsive: true, displaylogo: false });
}

function curves() {
  for (const figure of document.querySelectorAll(".curve")) {
    draw(figure);
    figure.querySelector("select").addEventListener("change", () => draw(figure));
  }
}

function theme() {
  const root = document.documentElement, button = document.getElementById("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept, then */ }
    if (window.Plotly) document.querySelectorAll(".curve").forEach(draw);
  });
}

try { const kept = localStorage.getItem("theme"); if (kept) document.documentElement.dataset.theme = kept; } catch { /* none kept */ }
document.addEventListener("DOMContentLoaded", () => {
  theme();
  document.querySelectorAll("table.data").forEach(sortable);
  document.querySelectorAll("[data-filter]").forEach(filter);
  const pair = document.getElementById("pair");
  if (pair) {
    pair.hidden = false;
    pair.addEventListener("change", show);
    pair.addEventListener("submit", (event) => event.preventDefault());
  }
  if (window.Plotly) curves();
});
