"use strict";
// What the page holds, and how one plot is drawn: plotly.py built it, the page adds the theme and its size.

const PAGE = JSON.parse(document.getElementById("report-data").textContent);
const RUNS = PAGE.runs.map((run, index) => ({ ...run, index, shown: true }));
const CONFIG = { displaylogo: false, displayModeBar: false, doubleClick: "reset", showTips: false };
const NOTHING_SHOWN = "No run that is shown has this.";

let printing = false;

function themeName() {
  if (printing) return "paper";
  const chosen = document.documentElement.dataset.theme;
  return chosen ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

function render(plot, figure) {
  const { data = [], layout, note = "", title, caption } = figure;
  const [heading, below] = plot.previousElementSibling.children;
  if (title) heading.textContent = title;
  if (caption !== undefined) below.textContent = caption;
  const chosen = heading.querySelector("select");
  plot.setAttribute("aria-label", [chosen ? chosen.selectedOptions[0].text : heading.textContent, below.textContent].filter(Boolean).join(". "));
  if (note || plot.classList.contains("empty")) {
    Plotly.purge(plot);
    plot.textContent = note;
    plot.classList.toggle("empty", note !== "");
  }
  if (note) return;
  const wide = plot.parentElement.classList.contains("wide");
  const height = layout.height ?? 320;
  const sized = {
    width: printing ? (wide ? 690 : 335) : plot.clientWidth,
    height: printing ? Math.min(Math.round(0.8 * height), wide ? 320 : 290) : height,
    template: PAGE.themes[themeName()],
    font: { family: getComputedStyle(document.body).fontFamily },
    // A finger that moves over a plot scrolls the page.
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
  };
  plot.style.height = `${sized.height}px`;
  Plotly.react(plot, data, { ...layout, ...sized }, CONFIG);
}

// A plot that is whole as it came: it shows the runs that are shown.
function renderWhole(plot, figure, note) {
  const data = figure.data.filter((trace) => RUNS[trace.meta].shown);
  render(plot, data.length ? { data: structuredClone(data), layout: structuredClone(figure.layout) } : { note });
}

// The smallest and the largest; a loop, since a call takes only so many arguments.
function extremes(lists) {
  let [low, high] = [Infinity, -Infinity];
  for (const values of lists) for (const value of values) if (Number.isFinite(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return [low, high];
}

// Whether a logarithmic scale can show the values, and shows more of them than a linear one.
function suitsLog(lists) {
  const [low] = extremes(lists);
  const [least, most] = extremes(lists.map((values) => values.filter((value) => value > 0)));
  return low >= 0 && most > 1.5 * least;
}

// Plotly reads some HTML in its texts: what comes from a file is shown as it is.
function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

// Little-endian fp32 in base64; null where a number is not finite.
function unpack(text) {
  const letters = atob(text);
  const view = new DataView(new ArrayBuffer(letters.length));
  for (let k = 0; k < letters.length; k += 1) view.setUint8(k, letters.charCodeAt(k));
  return Array.from({ length: letters.length / 4 }, (_, k) => view.getFloat32(4 * k, true)).map((value) => (Number.isFinite(value) ? value : null));
}
