// What is compared layer by layer: the smoothness of the weights, and the local response difference.

// One statistic of every layer at the slider's epoch, or in the last look before it: bars of a few runs, lines where
// bars would be too thin.
function drawProfile(analysis, domain, statistic, title, s) {
  const runs = shownRuns(analysis).filter((run) => tableOf(run, analysis).statistics.includes(statistic));
  const layers = layerOptions(analysis).map(([name]) => name);
  const has = (run, name) => seriesOf(tableOf(run, analysis), name, domain, statistic);
  const names = layers.filter((name) => runs.some((run) => has(run, name)));
  if (!names.length) return { note: "No run that is shown has this." };
  const looked = runs.filter((run) => lookAt(tableOf(run, analysis), s.x) >= 0);
  if (!looked.length) return { note: "The first looks at the runs that are shown were later." };
  const all = runs.flatMap((run) => names.map((name) => has(run, name)).filter((values) => values));
  const range = rangeOf(all);
  const log = s.log && !all.some((values) => extremes(values)[0] < 0);
  const bars = runs.length <= 4 && !log;
  const traces = looked.map((run) => {
    const table = tableOf(run, analysis);
    const now = lookAt(table, s.x);
    const own = names.map((_, k) => k).filter((k) => has(run, names[k]));
    const shape = line(run, own, own.map((k) => has(run, names[k])[now]));
    const hover = { customdata: own.map((k) => plain(names[k])), hovertemplate: `<b>%{fullData.name}</b>, epoch ${epochText(table.x[now])}<br>%{customdata}: %{y:.4~g}<extra></extra>` };
    if (!bars) return { ...shape, ...hover, mode: "lines+markers", marker: { ...shape.marker, size: 6 }, line: { ...shape.line, width: 1.5 } };
    return { type: "bar", x: shape.x, y: shape.y, name: shape.name, marker: { color: colourOf(run), pattern: { shape: PATTERNS[turnOf(run)], fillmode: "overlay", fgcolor: theme().card, size: 10, solidity: 0.25 } }, ...hover };
  });
  return {
    traces,
    layout: {
      bargap: 0.25,
      xaxis: axis("", { ...categories(names), tickangle: names.length > 6 ? -60 : 0, showgrid: false, tickfont: { size: points(10), color: theme().muted } }),
      yaxis: log || !range ? valueAxis(title, log, traces) : axis(title, { range: [Math.min(0, range[0]), Math.max(0, range[1])] }),
    },
  };
}

// The layer that most runs have; of several the one in the middle or the last.
function commonLayer(analysis, share) {
  const runs = RUNS.filter((run) => run.analyses.includes(analysis));
  const count = (name) => runs.filter((run) => tableOf(run, analysis).names.includes(name)).length;
  const names = layerOptions(analysis).map(([name]) => name);
  const [, most] = extremes(names.map(count));
  const common = names.filter((name) => count(name) === most);
  return common[Math.floor(share * (common.length - 1))];
}

// The epoch of what is shown of one run.
function epochName(s, analysis) {
  const table = tableOf(RUNS[Number(s.run)], analysis);
  return epochText(table.x[lookAt(table, s.x)] ?? s.x);
}

// The epoch of what is shown of every run.
function commonEpoch(s, analysis) {
  const tables = shownRuns(analysis).map((run) => tableOf(run, analysis));
  const differ = tables.some((table) => Math.abs((table.x[lookAt(table, s.x)] ?? s.x) - s.x) > 1e-9);
  return `epoch ${epochText(s.x)}${differ ? ", or the last look before it" : ""}`;
}

function wholeNetwork(analysis) {
  const found = new Set();
  for (const run of RUNS.filter((each) => each.analyses.includes(analysis))) {
    for (const key of tableOf(run, analysis).series.keys()) {
      const [name, , statistic] = key.split("\0");
      if (!name) found.add(statistic);
    }
  }
  return [...found];
}

function smoothnessSection() {
  const ofNetwork = wholeNetwork("smoothness");
  const ofLayers = statisticOptions("smoothness", (name) => name !== "quadratic_sum");
  const domains = domainOptions("smoothness");
  const wanted = ["relative_kernel_variance"].find((name) => ofLayers.some(([value]) => value === name)) ?? ofLayers[0]?.[0];
  const layers = layerOptions("smoothness");
  return {
    id: "smoothness",
    state: { statistic: wanted, layer: commonLayer("smoothness", 0.5), domain: domains[0][0], whole: ofNetwork[0], log: false },
    nothing: NOTHING_YET,
    slider: true,
    controls: [
      { key: "whole", label: "Whole network", options: () => ofNetwork.map((name) => [name, statisticLabel(name)]) },
      { key: "statistic", label: "Statistic of a convolution", options: () => ofLayers },
      { key: "layer", label: "Layer", options: () => layers },
      { key: "domain", label: "BatchNorm domain", options: () => domains },
      LOG,
    ],
    cards: [
      { needs: ["whole"], title: (s) => statisticLabel(s.whole), caption: (s) => (s.whole === "quadratic_sum" ? `whole network${throughBatchNorm(s.domain)}` : "mean over the convolutions"), draw: (s) => drawCurves("smoothness", "", s.domain, s.whole, axisLabel(s.whole), s), moves: "line" },
      { needs: ["statistic", "layer"], title: (s) => statisticLabel(s.statistic), caption: (s) => `${s.layer}, every run`, draw: (s) => drawCurves("smoothness", s.layer, s.domain, s.statistic, axisLabel(s.statistic), s), moves: "line" },
      { needs: ["statistic"], wide: true, height: 380, title: (s) => statisticLabel(s.statistic), caption: (s) => `every convolution, ${commonEpoch(s, "smoothness")}`, draw: (s) => drawProfile("smoothness", s.domain, s.statistic, axisLabel(s.statistic), s), moves: "all" },
    ],
  };
}

function responseSection() {
  const present = new Set(RUNS.filter((run) => run.analyses.includes("local_response")).flatMap((run) => tableOf(run, "local_response").statistics));
  const examples = [["", "own"], ["transferred_", "transferred from another network"]].filter(([prefix]) => present.has(`${prefix}total`));
  const groups = [["", "all images"], ["_successful", "successful attacks"], ["_failed", "failed attacks"]].filter(([suffix]) => !suffix || [...present].some((name) => name.endsWith(suffix)));
  const domains = domainOptions("local_response");
  const layers = layerOptions("local_response");
  const words = { max: "Maximum", total: "Total" };
  const of = (s, which) => `${s.examples}${which}${s.group}`;
  const said = (s) => `${s.examples ? "transferred" : "own"} examples${s.group ? `, ${groups.find(([value]) => value === s.group)[1]}` : ""}${throughBatchNorm(s.domain)}`;
  const profile = (which) => ({
    needs: ["layer"], title: () => `${words[which]} difference by layer`, caption: (s) => `${said(s)}, ${commonEpoch(s, "local_response")}`, moves: "all",
    draw: (s) => drawProfile("local_response", s.domain, of(s, which), `${words[which]} |Δ response|`, s),
  });
  const curve = (which) => ({
    needs: ["layer"], title: () => `${words[which]} difference`, caption: (s) => `${s.layer}, ${said(s)}`, moves: "line",
    draw: (s) => drawCurves("local_response", s.layer, s.domain, of(s, which), `${words[which]} |Δ response|`, s),
  });
  return {
    id: "local_response",
    state: { examples: examples[0]?.[0] ?? "", group: "", layer: commonLayer("local_response", 1), domain: domains[0][0], log: true },
    nothing: NOTHING_YET,
    slider: true,
    controls: [
      { key: "examples", label: "Adversarial examples", options: () => examples },
      { key: "group", label: "Images", options: () => groups },
      { key: "layer", label: "Layer", options: () => layers },
      { key: "domain", label: "BatchNorm domain", options: () => domains },
      LOG,
    ],
    cards: [profile("max"), profile("total"), curve("max"), curve("total")],
  };
}
