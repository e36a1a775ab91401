// How plots look, and how one is drawn: each draw returns { traces, layout } or { note } where there is nothing to see.

// Okabe & Ito, without yellow, which is too light on white; an eighth run begins again with another dash, symbol and pattern.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6FBF"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up"];
const GLYPHS = ["●", "■", "◆", "▲"];
const TURNS = ["", "-open", "-dot", "-open-dot"]; // of a symbol that says something else
const PATTERNS = ["", "/", "x", "."];
const DOMAIN_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"];

let printing = false;

function colourOf(run) {
  return COLOURS[run.index % COLOURS.length];
}

function turnOf(run) {
  return Math.floor(run.index / COLOURS.length) % DASHES.length;
}

function swatch(run) {
  const dash = ["", "5 2.5", "1.5 2.5", "7 2 1.5 2"][turnOf(run)];
  return `<svg width="22" height="10" aria-hidden="true"><line x1="1" y1="5" x2="21" y2="5" stroke="${colourOf(run)}" stroke-width="3" stroke-dasharray="${dash}"/></svg>`;
}

function isDark() {
  if (printing) return false;
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function theme() {
  return isDark()
    ? { text: "#e7e9ec", muted: "#a3abb5", grid: "#343a43", card: "#1d2026" }
    : { text: "#1b1f24", muted: "#59616b", grid: "#e3e6ea", card: "#ffffff" };
}

// Plotly reads some HTML in its texts: what comes from a file is shown as it is.
function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function line(run, x, y, changes = {}) {
  return {
    type: "scatter",
    mode: x.length < 40 ? "lines+markers" : "lines",
    x: Array.from(x),
    y: finite(y),
    name: plain(run.name),
    line: { color: colourOf(run), dash: DASHES[turnOf(run)], width: 2 },
    marker: { color: colourOf(run), symbol: SYMBOLS[turnOf(run)], size: x.length < 15 ? 6 : 4 },
    hovertemplate: "<b>%{fullData.name}</b><br>epoch %{x:.4~g}: %{y:.4~g}<extra></extra>",
    ...changes,
  };
}

function axis(title, changes = {}) {
  const { text, muted, grid } = theme();
  return {
    title: { text: plain(title), font: { size: points(12), color: text }, standoff: 8 },
    tickfont: { size: points(11), color: muted },
    gridcolor: grid,
    linecolor: grid,
    zeroline: false,
    automargin: true,
    exponentformat: "power",
    ...changes,
  };
}

// A logarithmic scale has no place for negative values: those are shown on a linear one.
function valueAxis(title, log, traces) {
  const values = traces.flatMap((trace) => trace.y);
  if (!log || extremes(values)[0] < 0) return axis(title, { rangemode: "tozero" });
  if (!spreads(values)) return axis(title);
  const ticks = logTicks(values);
  return axis(title, { type: "log", tickvals: ticks, ticktext: ticks.map(tickText) });
}

// Whether a logarithmic scale shows more than a linear one.
function spreads(values) {
  const [low, high] = extremes(values.filter((value) => value > 0));
  return high > 1.5 * low;
}

// Powers of ten, with 2 and 5 between them where there would be few.
function logTicks(values) {
  const [least, most] = extremes(values.filter((value) => value > 0));
  const [low, high] = [Math.log10(least) - 0.05, Math.log10(most) + 0.05];
  const steps = high - low < 0.8 ? [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8] : high - low < 3 ? [1, 2, 5] : [1];
  const every = Math.ceil((high - low) / 7);
  const ticks = [];
  for (let power = Math.floor(low / every) * every; power <= high; power += every) {
    for (const step of steps) {
      const at = power + Math.log10(step);
      if (at >= low && at <= high) ticks.push(Number(`${step}e${power}`));
    }
  }
  return ticks;
}

function tickText(value) {
  if (value >= 1e-3 && value < 1e5) return value.toLocaleString("en", { maximumSignificantDigits: 2 });
  const power = Math.floor(Math.log10(value) + 1e-9);
  const step = Number((value / 10 ** power).toPrecision(2));
  return `${step === 1 ? "" : `${step}·`}10<sup>${power}</sup>`;
}

function categories(labels, changes = {}) {
  return { tickvals: labels.map((_, k) => k), ticktext: labels.map(plain), range: [-0.6, labels.length - 0.4], ...changes };
}

// The slider's epoch is on the axis too, where it has a line.
function epochAxis(traces, marked = []) {
  const [first, last] = extremes([...traces.flatMap((trace) => trace.x), ...marked]);
  const few = last - first < 8 ? { dtick: 1, tick0: 0 } : { nticks: 8, tickformat: "d" };
  return axis("Epoch", { ...few, ...(last > first ? {} : { range: [first - 1, first + 1] }) });
}

function epochLine(x) {
  if (x === undefined) return [];
  const { text } = theme();
  return [{ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: { color: text, width: 1, dash: "dot" }, opacity: 0.7 }];
}

function layoutOf(card, changes, height) {
  const { text, muted, card: background } = theme();
  const legend = { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size: points(12), color: text }, bgcolor: "rgba(0,0,0,0)" };
  return {
    width: printing ? (card.wide ? 690 : 335) : card.plot.clientWidth,
    height: printing ? Math.min(Math.round(0.8 * height), card.wide ? 320 : 290) : height,
    margin: { l: 52, r: 12, t: changes.showlegend ? 34 : 12, b: 44 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, color: muted },
    hoverlabel: { bgcolor: background, bordercolor: muted, font: { color: text, size: points(12) } },
    hovermode: "closest",
    showlegend: false,
    legend,
    // A finger that moves over a plot scrolls the page.
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    ...changes,
  };
}

// Text is smaller on paper, where plots are.
function points(size) {
  return printing ? size - 2 : size;
}

const CONFIG = { displaylogo: false, displayModeBar: false, doubleClick: "reset", showTips: false };

function makeCard(grid, { wide = false, height = 320 }) {
  const figure = document.createElement("figure");
  figure.className = wide ? "card wide" : "card";
  figure.innerHTML = '<figcaption><b></b> <span></span></figcaption><div class="plot" role="img"></div>';
  grid.append(figure);
  const plot = figure.querySelector(".plot");
  plot.style.height = `${height}px`;
  return { figure, plot, wide, height, title: figure.querySelector("b"), caption: figure.querySelector("span") };
}

function render(card, drawn, title, caption = "", ownTitle = false) {
  if (!ownTitle) card.title.textContent = title;
  card.caption.textContent = caption;
  card.plot.setAttribute("aria-label", `${title}. ${caption}`);
  if (drawn.note) {
    Plotly.purge(card.plot);
    card.plot.textContent = drawn.note;
    card.plot.classList.add("empty");
    return;
  }
  if (card.plot.classList.contains("empty")) {
    card.plot.textContent = "";
    card.plot.classList.remove("empty");
  }
  const layout = layoutOf(card, drawn.layout, drawn.height ?? card.height);
  card.plot.style.height = `${layout.height}px`;
  Plotly.react(card.plot, drawn.traces, layout, CONFIG);
}
