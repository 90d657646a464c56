// Sorting, filtering, comparing, curves and the theme. Without it every page still shows everything.
"use strict";

const COLORS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "pentagon"];
const SCALE = { k: 1e3, M: 1e6, G: 1e9 };

function number(text) {
  const found = /^(?:< |[\d.]+: )?([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s?(?:([kMG])|x)?(?![\w.])/.exec(text.trim());
  return found ? Number(found[1]) * (SCALE[found[2]] || 1) : NaN;
}

function compare(a, b) {
  if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1);
  const x = number(a), y = number(b);
  return Number.isNaN(x) || Number.isNaN(y) || x === y ? a.localeCompare(b, "en") : x - y;
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

// Headings of every section that a table stands in: what they say holds for each of its rows.
function titles(table) {
  const found = [];
  for (let part = table.closest("section"); part; part = part.parentElement.closest("section")) {
    found.push(part.querySelector(":scope > :is(h2, h3, h4)")?.textContent || "");
  }
  return found.join(" ").toLowerCase();
}

// A section without a row that fits goes as a whole, with its pictures and footnotes.
function show() {
  const wanted = (document.querySelector(".filter input")?.value || "").toLowerCase().split(/\s+/).filter(Boolean);
  const pair = [...document.querySelectorAll("#pair select")].map((select) => select.value).filter(Boolean);
  let shown = 0, all = 0;
  for (const table of document.querySelectorAll("table.data")) {
    const title = titles(table);
    for (const row of table.tBodies[0].rows) {
      const text = `${title} ${row.textContent.toLowerCase()}`;
      const both = [row.children[2]?.textContent.trim(), row.children[3]?.textContent.trim()];
      const fits = wanted.every((word) => text.includes(word)) && pair.every((name) => both.includes(name));
      row.hidden = !fits;
      shown += fits;
      all += 1;
    }
  }
  let back = false;
  for (const section of document.querySelectorAll("section:has(table.data)")) {
    const gone = wanted.length + pair.length > 0 && !section.querySelector("tbody tr:not([hidden])");
    back ||= section.hidden && !gone;
    section.hidden = gone;
  }
  if (back) curves(); // they know no width while they are hidden
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

// A trace of what was timed in quiet, and one, faint and joined by no line, of what was disturbed.
function byTrust(name, own, doubt, trace) {
  const quiet = own.filter((point) => !doubt(point)), faint = own.filter(doubt), traces = [];
  const shared = { type: "scatter", name, legendgroup: name };
  if (quiet.length) traces.push({ ...shared, ...trace(quiet) });
  if (faint.length) traces.push({ ...shared, ...trace(faint), mode: "markers", opacity: 0.45, showlegend: !quiet.length });
  return traces;
}

const doubted = (why) => (why ? `, disturbed: ${why}` : "");

function draw(figure) {
  const made = JSON.parse(figure.querySelector("script").textContent), at = Number(figure.querySelector("select").value);
  const style = getComputedStyle(document.documentElement);
  const names = [...new Set(made.points.map((point) => point.method))];
  const drawn = made.points.filter((point) => point.costs[at] !== null);
  const traces = names.flatMap((name, i) => byTrust(name, drawn.filter((point) => point.method === name), (point) => point.doubts[at], (own) => ({
    mode: "markers", x: own.map((point) => point.costs[at]), y: own.map((point) => point.mean),
    error_y: { type: "data", array: own.map((point) => point.half), visible: true },
    text: own.map((point) => `${point.asked || "dense"}, n = ${point.n}${doubted(point.doubts[at])}`),
    marker: { color: COLORS[i % COLORS.length], size: own[0].dense ? 13 : 9, symbol: own[0].dense ? "star" : SYMBOLS[i % SYMBOLS.length] },
  })));
  const front = made.fronts[at];
  traces.unshift({
    type: "scatter", mode: "lines", name: "Pareto front", x: front.map((p) => p[0]), y: front.map((p) => p[1]),
    line: { shape: "hv", color: style.getPropertyValue("--soft").trim(), width: 1 }, hoverinfo: "skip",
  });
  plot(figure, traces, { title: made.axes[at] }, { title: made.metric, range: span(drawn.map((point) => point.mean)) });
}

// Of what is drawn, with some room: an interval over few seeds may be many times as long, and is cut off.
function span(values) {
  const low = Math.min(...values), high = Math.max(...values), room = 0.15 * (high - low);
  return room ? [low - room, high + room] : undefined;
}

// Measured against theoretical speed-up, both on logarithmic axes.
function drawSpeed(figure) {
  const made = JSON.parse(figure.querySelector("script").textContent);
  const names = [...new Set(made.points.map((point) => point.curve))];
  const traces = names.flatMap((name, i) => byTrust(name, made.points.filter((point) => point.curve === name), (point) => point.disturbed, (own) => ({
    mode: "lines+markers", line: { width: 1 }, x: own.map((point) => point.counted), y: own.map((point) => point.ratio),
    error_y: {
      type: "data", symmetric: false, visible: true,
      array: own.map((point) => Math.max(0, point.high - point.ratio)),
      arrayminus: own.map((point) => Math.max(0, point.ratio - point.low)),
    },
    text: own.map((point) => point.asked + doubted(point.disturbed)),
    marker: { color: COLORS[i % COLORS.length], size: 8, symbol: SYMBOLS[i % SYMBOLS.length] },
  })));
  const ends = made.points.flatMap((point) => [point.counted, point.ratio, 1]);
  const low = Math.min(...ends), high = Math.max(...ends);
  const color = getComputedStyle(document.documentElement).getPropertyValue("--soft").trim();
  const line = (y0, y1, dash) => ({ type: "line", x0: low, x1: high, y0, y1, layer: "below", line: { color, width: 1, dash } });
  const powers = [...Array(16).keys()].map((i) => 2 ** (i - 6)), pad = 0.04 * Math.log10(high / low) + 0.01;
  const range = [Math.log10(low) - pad, Math.log10(high) + pad];
  const axis = { type: "log", tickvals: powers, ticktext: powers.map((power) => `${power}x`), range };
  plot(
    figure, traces, { ...axis, title: "theoretical speed-up: dense MACs / MACs" },
    { ...axis, title: "measured speed-up" }, [line(low, high, "solid"), line(1, 1, "dot")],
  );
}

// Lines of at most so many characters.
function lines(text, most) {
  return text.match(new RegExp(`\\s*.{1,${most}}(?=\\s|$)|.{1,${most}}`, "g")).map((line) => line.trim());
}

// A legend of short names stands beside the axes, where the screen is wide; else below, and the figure is as much higher.
function plot(figure, traces, x, y, shapes = []) {
  const style = getComputedStyle(document.documentElement), place = figure.querySelector(".plot");
  const narrow = window.matchMedia("(max-width: 40rem)").matches;
  const below = narrow || traces.some((trace) => trace.name.length > 40);
  const most = Math.max(20, Math.floor((place.clientWidth - 70) / 7)); // characters of a line
  let room = 10;
  for (const trace of traces) {
    const name = lines(trace.name, most);
    trace.name = name.join("<br>");
    if (trace.showlegend !== false) room += 3 + 16 * name.length;
  }
  const axis = ({ title, ...rest }) => ({
    title: { text: lines(title, most).join("<br>"), standoff: 8 }, automargin: true, gridcolor: style.getPropertyValue("--line").trim(), zeroline: false, ...rest,
  });
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { t: 10, r: 10, l: 10, b: 10 },
    font: { color: style.getPropertyValue("--ink").trim() }, xaxis: axis(x), yaxis: axis(y), shapes,
    legend: { tracegroupgap: 0, ...(below && { x: 0, y: 0, yref: "container", yanchor: "bottom", maxheight: room }) },
  };
  place.style.height = `${below ? (narrow ? 380 : 500) + room : Math.max(480, 60 + room)}px`;
  Plotly.newPlot(place, traces, layout, { responsive: true, displaylogo: false });
}

function curves() {
  if (!window.Plotly) return;
  document.querySelectorAll(".curve").forEach(draw);
  document.querySelectorAll(".speed").forEach(drawSpeed);
}

function theme() {
  const root = document.documentElement, button = document.getElementById("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept, then */ }
    curves();
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
  for (const figure of document.querySelectorAll(".curve")) figure.querySelector("select").addEventListener("change", () => draw(figure));
  curves();
});
