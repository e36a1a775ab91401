// The summary's plots and the training curves.

function testedPoints(run) {
  const entries = Object.entries(run.tested).filter(([, measured]) => Number.isFinite(measured.clean_accuracy));
  const domains = entries.filter(([domain]) => domain);
  return (domains.length ? domains : entries).map(([domain, measured]) => ({ run, domain, measured }));
}

function pointName({ run, domain }) {
  return domain ? `${run.name}, ${domain}` : run.name;
}

function errorBar(measured, kind, visible = true) {
  const share = measured[`${kind}_accuracy`];
  const [low, high] = measured[`${kind}_interval`] ?? [share, share];
  return { type: "data", symmetric: false, array: [100 * (high - share)], arrayminus: [100 * (share - low)], thickness: 1.5, width: 0, visible };
}

// Names that begin alike often end differently.
function shorten(text, length) {
  const begin = Math.floor(length / 3);
  return text.length > length ? `${text.slice(0, begin)}…${text.slice(begin + 1 - length)}` : text;
}

// A domain has the same symbol in every run.
const TESTED_DOMAINS = union(RUNS.map((run) => Object.keys(run.tested).filter((domain) => domain)));

function symbolOf({ run, domain }) {
  return `${SYMBOLS[Math.max(0, TESTED_DOMAINS.indexOf(domain)) % SYMBOLS.length]}${TURNS[turnOf(run)]}`;
}

// The two plots of the summary are as high as the runs need to stand one below the other.
function summaryHeight(tested) {
  return Math.max(SUMMARY.cards.length > 1 ? 320 : 130, 70 + 24 * tested.length);
}

function drawTested(card) {
  const tested = shownRuns().flatMap(testedPoints);
  if (!tested.length) return { note: "No run that is shown has results yet." };
  const traces = tested.flatMap((point, row) =>
    ["clean", "robust"].filter((kind) => Number.isFinite(point.measured[`${kind}_accuracy`])).map((kind) => ({
      type: "scatter",
      mode: "markers",
      x: [100 * point.measured[`${kind}_accuracy`]],
      y: [row],
      name: plain(pointName(point)),
      error_x: { ...errorBar(point.measured, kind), color: colourOf(point.run) },
      marker: { color: colourOf(point.run), size: 10, symbol: kind === "clean" ? "circle-open" : "diamond", line: { width: 2, color: colourOf(point.run) } },
      hovertemplate: `<b>%{fullData.name}</b><br>${kind} accuracy %{x:.1f} %<extra></extra>`,
    })),
  );
  const labels = tested.map((point) => shorten(pointName(point), card.plot.clientWidth < 480 || printing ? 20 : 32));
  return {
    traces,
    height: summaryHeight(tested),
    layout: {
      xaxis: axis("Test accuracy (%)", { range: [-2, 102], showline: false }),
      yaxis: axis("", { ...categories(labels), range: [tested.length - 0.4, -0.6] }),
    },
  };
}

function drawTradeOff() {
  const tested = shownRuns().flatMap(testedPoints).filter(({ measured }) => Number.isFinite(measured.robust_accuracy));
  if (!tested.length) return { note: "No run that is shown has results yet." };
  const traces = tested.map((point) => ({
    type: "scatter",
    mode: "markers",
    x: [100 * point.measured.clean_accuracy],
    y: [100 * point.measured.robust_accuracy],
    name: plain(pointName(point)),
    error_x: { ...errorBar(point.measured, "clean"), color: colourOf(point.run) },
    error_y: { ...errorBar(point.measured, "robust"), color: colourOf(point.run) },
    marker: { color: colourOf(point.run), size: 10, symbol: symbolOf(point), ...(turnOf(point.run) ? { line: { width: turnOf(point.run) === 2 ? 1 : 2, color: turnOf(point.run) === 2 ? theme().card : colourOf(point.run) } } : {}) },
    hovertemplate: "<b>%{fullData.name}</b><br>clean %{x:.1f} %, robust %{y:.1f} %<extra></extra>",
  }));
  return { traces, height: summaryHeight(tested), layout: { xaxis: axis("Clean accuracy (%)"), yaxis: axis("Robust accuracy (%)") } };
}

// One point has nothing to be compared with.
const COMPARED = RUNS.flatMap(testedPoints).length > 1;
const SUMMARY = {
  id: "summary",
  state: {},
  controls: [],
  cards: [
    {
      title: () => "Clean and robust accuracy",
      caption: () => "○ clean, ◆ robust; lines: 95 % intervals",
      draw: (_, card) => drawTested(card),
      wide: !COMPARED,
    },
    { title: () => "Robust against clean accuracy", caption: domainCaption, draw: drawTradeOff },
  ].slice(0, COMPARED ? 2 : 1),
};

function domainCaption() {
  return TESTED_DOMAINS.map((domain, k) => `${GLYPHS[k % GLYPHS.length]} ${domain}`).join(", ");
}

function metricOptions() {
  const metrics = union(RUNS.map((run) => Object.keys(run.metrics)));
  const order = ["Accuracy", "Loss", "Learning rate", "Other"];
  return metrics
    .map((metric) => ({ value: metric, ...metricLabel(metric) }))
    .sort((a, b) => order.indexOf(a.group) - order.indexOf(b.group) || a.name.localeCompare(b.name))
    .map(({ value, name, group }) => [value, name, group]);
}

function drawMetric(metric) {
  const { axis: title, factor, log } = metricLabel(metric);
  const traces = shownRuns()
    .filter((run) => Object.hasOwn(run.metrics, metric))
    .map((run) => line(run, run.metrics[metric][0], run.metrics[metric][1].map((value) => (value === null ? null : factor * value))));
  if (!traces.length) return { note: "No run that is shown has logged this." };
  return { traces, layout: { xaxis: epochAxis(traces), yaxis: valueAxis(title, log, traces) } };
}

function trainingSection() {
  const options = metricOptions();
  const known = new Set(options.map(([value]) => value));
  const rate = options.find(([, , group]) => group === "Learning rate")?.[0];
  const wanted = ["val/robust_accuracy", "val/clean_accuracy", "train/loss", rate].filter((metric) => known.has(metric));
  const chosen = wanted.length ? wanted : options.slice(0, 2).map(([value]) => value);
  return {
    id: "training",
    state: Object.fromEntries(chosen.map((metric, k) => [`metric${k}`, metric])),
    controls: chosen.map((_, k) => ({ key: `metric${k}`, label: `Metric of plot ${k + 1}`, options: () => options, card: k })),
    cards: chosen.map((_, k) => ({ title: (s) => metricLabel(s[`metric${k}`]).name, draw: (s) => drawMetric(s[`metric${k}`]) })),
    nothing: "No run has a metrics.csv that can be read.",
  };
}
