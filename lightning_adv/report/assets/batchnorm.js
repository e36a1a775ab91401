// BatchNorm drift (figure 6.5) and running against batch statistics (figure 6.6).

const NOTHING_YET = "No layer has been written down yet.";
const LOG = { key: "log", label: "Logarithmic", check: true };

function runOptions(analysis) {
  return RUNS.filter((run) => run.analyses.includes(analysis)).map((run) => [String(run.index), run.name]);
}

function domainOptions(analysis) {
  const all = union(RUNS.filter((run) => run.analyses.includes(analysis)).map((run) => tableOf(run, analysis).domains));
  const named = all.filter((domain) => domain);
  return (named.length ? named : [""]).map((domain) => [domain, domain || "the only one"]);
}

function layerOptions(analysis) {
  const lists = RUNS.filter((run) => run.analyses.includes(analysis)).map((run) => tableOf(run, analysis).names.filter((name) => name));
  return merge(lists).map((name) => [name, name]);
}

function statisticOptions(analysis, accept) {
  const all = union(RUNS.filter((run) => run.analyses.includes(analysis)).map((run) => tableOf(run, analysis).statistics));
  return all.filter((name) => !name.endsWith("]") && accept(name)).map((name) => [name, statisticLabel(name)]);
}

// The curves of one statistic of one layer, run by run.
function drawCurves(analysis, name, domain, statistic, title, s) {
  const traces = [];
  for (const run of shownRuns(analysis)) {
    const table = tableOf(run, analysis);
    const values = seriesOf(table, name, domain, statistic);
    if (values) traces.push(line(run, table.x, values));
  }
  if (!traces.length) return { note: `No run that is shown has this of ${name || "the whole network"}${throughBatchNorm(domain)}.` };
  return { traces, layout: { xaxis: epochAxis(traces, [s.x]), yaxis: valueAxis(title, s.log, traces), shapes: epochLine(s.x) } };
}

function drawHeatmap(s, card) {
  const run = RUNS[Number(s.run)];
  const table = tableOf(run, "bn_drift");
  const names = table.names.filter((name) => name && seriesOf(table, name, s.domain, s.statistic));
  if (!names.length) return { note: `${run.name} has no “${statisticLabel(s.statistic)}”${throughBatchNorm(s.domain)}.` };
  const values = names.map((name) => finite(seriesOf(table, name, s.domain, s.statistic)));
  const signed = s.statistic.startsWith("signed_") || values.flat().some((value) => value < 0);
  const log = s.log && !signed && spreads(values.flat());
  const z = log ? values.map((row) => row.map((value) => (value > 0 ? Math.log10(value) : null))) : values;
  const { text, muted } = theme();
  const scale = signed ? { colorscale: "RdBu", zmid: 0 } : { colorscale: "Viridis" };
  const ticks = log ? logTicks(values.flat()) : [];
  const powers = log ? { tickvals: ticks.map(Math.log10), ticktext: ticks.map(tickText) } : {};
  const narrow = card.plot.clientWidth < 480 && !printing;
  return {
    traces: [{
      type: "heatmap", x: table.x, y: names.map((_, k) => k), z, customdata: values, text: names.map((name) => table.x.map(() => plain(name))), ...scale,
      colorbar: { thickness: 12, outlinewidth: 0, tickfont: { size: points(11), color: muted }, title: { text: narrow ? "" : plain(axisLabel(s.statistic)), side: "right", font: { size: points(11), color: text } }, exponentformat: "power", ...powers },
      hovertemplate: "<b>%{text}</b><br>epoch %{x:.4~g}: %{customdata:.4~g}<extra></extra>",
    }],
    height: Math.max(240, 90 + 17 * names.length),
    layout: {
      xaxis: { ...epochAxis([table]), showgrid: false },
      yaxis: axis("", { ...categories(names.map((name) => shorten(name, narrow ? 16 : 32))), range: [names.length - 0.5, -0.5], showgrid: false, tickfont: { size: points(10), color: muted } }),
      shapes: epochLine(heatmapLook(s)),
    },
  };
}

// The run of the heat map may have no look at the slider's epoch: the last one before it is marked.
function heatmapLook(s) {
  const table = tableOf(RUNS[Number(s.run)], "bn_drift");
  return table.x[lookAt(table, s.x)];
}

// Points over the sampled channels of a layer: `sets` are { label, values(k), ...style }; a line joins what one channel has.
function drawChannels(channels, sets, title, range) {
  const { grid } = theme();
  const joined = { x: [], y: [] };
  const rows = sets.map((set) => finite(channels.map((_, k) => set.values[k])));
  channels.forEach((_, k) => {
    const present = rows.map((row) => row[k]).filter((value) => value !== null);
    joined.x.push(k, k, null);
    joined.y.push(...(present.length ? extremes(present) : [null, null]), null);
  });
  const traces = sets.map((set, number) => ({
    type: "scatter", mode: "markers", x: channels.map((_, k) => k), y: rows[number], text: channels.map(String),
    name: plain(set.label), marker: { size: 8, ...set.marker }, hovertemplate: "channel %{text}, %{fullData.name}: %{y:.4~g}<extra></extra>",
  }));
  const lines = { type: "scatter", mode: "lines", ...joined, line: { color: grid, width: 3 }, hoverinfo: "skip", showlegend: false };
  return {
    traces: [lines, ...traces],
    layout: {
      showlegend: true,
      xaxis: axis("Channel", { ...categories(channels), showgrid: false, tickangle: channels.length > 12 ? -90 : 0, tickfont: { size: points(10), color: theme().muted } }),
      yaxis: axis(title, { range }),
    },
  };
}

// The axis of a channel plot holds still while the slider moves.
function rangeOf(series) {
  const [low, high] = extremes(series.flatMap((values) => extremes(values)));
  if (low > high) return undefined;
  const space = 0.06 * (high - low || Math.abs(high) || 1);
  return [low - space, high + space];
}

function drawDomains(s, moment) {
  const run = RUNS[Number(s.run)];
  const table = tableOf(run, "bn_drift");
  const statistic = `running_${moment}`;
  const domains = table.domains.filter((domain) => channelsOf(table, s.layer, domain, statistic).length);
  if (!domains.length) return noChannels("bn_drift", run, s.layer);
  const channels = channelsOf(table, s.layer, domains[0], statistic);
  const of = (domain) => channels.map((channel) => seriesOf(table, s.layer, domain, `${statistic}[${channel}]`));
  const now = lookAt(table, s.x);
  if (now < 0) return notYet(run);
  const sets = domains.map((domain, k) => ({ label: domain || `epoch ${epochText(table.x[now])}`, values: of(domain).map((values) => values[now]), marker: { color: DOMAIN_COLOURS[k % 4], symbol: SYMBOLS[k % 3] } }));
  if (domains.length === 1) {
    sets.unshift({ label: "first look", values: of(domains[0]).map((values) => values[0]), marker: { color: theme().muted, symbol: "circle-open", line: { width: 2 } } });
  }
  return drawChannels(channels, sets, `Running ${moment}`, rangeOf(domains.flatMap(of)));
}

function drawBatches(s, moment) {
  const run = RUNS[Number(s.run)];
  const table = tableOf(run, "bn_gap");
  const channels = channelsOf(table, s.layer, s.domain, `running_${moment}`);
  if (!channels.length) return noChannels("bn_gap", run, s.layer);
  const of = (statistic) => channels.map((channel) => seriesOf(table, s.layer, s.domain, `${statistic}[${channel}]`));
  const now = lookAt(table, s.x);
  if (now < 0) return notYet(run);
  const pick = (statistic) => of(statistic).map((values) => values?.[now]);
  const sets = [];
  const names = [`running_${moment}`];
  for (let batch = 0; of(`${s.kind}_${moment}_batch${batch}`).some((values) => values); batch += 1) {
    names.push(`${s.kind}_${moment}_batch${batch}`);
    sets.push({ label: `batch ${batch}`, values: pick(names.at(-1)), marker: { color: DOMAIN_COLOURS[batch % 4], symbol: `${SYMBOLS[batch % 3]}-open`, line: { width: 2 } } });
  }
  sets.push({ label: "running", values: pick(names[0]), marker: { color: theme().text, symbol: "line-ew-open", size: 12, line: { width: 3 } } });
  return drawChannels(channels, sets, `${moment === "mean" ? "Mean" : "Variance"}`, rangeOf(names.flatMap(of).filter((values) => values)));
}

function notYet(run) {
  return { note: `The first look at ${run.name} was later.` };
}

function noChannels(analysis, run, layer) {
  const sampled = layersWithChannels(run, analysis).join(", ");
  return { note: sampled ? `Of ${run.name}, single channels were written down of ${sampled}; not of ${layer}.` : `No single channels were written down of ${run.name}.` };
}

// Networks may have other layers: a run that is chosen brings its own if it lacks the one that is shown.
function runControl(analysis, label) {
  const adjust = (s) => {
    const run = RUNS[Number(s.run)];
    return tableOf(run, analysis).names.includes(s.layer) ? {} : { layer: firstLayer(run, analysis) };
  };
  return { key: "run", label, options: () => runOptions(analysis), adjust };
}

function firstLayer(run, analysis) {
  return layersWithChannels(run, analysis)[0] ?? tableOf(run, analysis).names.find((name) => name);
}

function batchNormDefaults(analysis) {
  const runs = RUNS.filter((run) => run.analyses.includes(analysis));
  // Who has most to show: several domains, then the most looks.
  const worth = (each) => [tableOf(each, analysis).domains.length, tableOf(each, analysis).x.length];
  const run = runs.reduce((best, each) => {
    const [domains, looks] = worth(each).map((value, k) => value - worth(best)[k]);
    return domains > 0 || (domains === 0 && looks > 0) ? each : best;
  });
  return { run: String(run.index), layer: firstLayer(run, analysis), domain: domainOptions(analysis).at(-1)[0], log: false };
}

function driftSection() {
  const curve = (s) => `${s.layer}${throughBatchNorm(s.domain)}, every run`;
  const channel = (s) => `${RUNS[Number(s.run)].name}, ${s.layer}, epoch ${epochName(s, "bn_drift")}`;
  const statistics = statisticOptions("bn_drift", () => true);
  const wanted = ["kl_from_start", "variance_from_start"].find((name) => statistics.some(([value]) => value === name));
  return {
    id: "bn_drift",
    state: { ...batchNormDefaults("bn_drift"), statistic: wanted ?? statistics[0]?.[0], log: true },
    nothing: NOTHING_YET,
    slider: true,
    controls: [
      runControl("bn_drift", "Run of the heat map and the channels"),
      { key: "layer", label: "Layer", options: () => layerOptions("bn_drift") },
      { key: "domain", label: "BatchNorm domain", options: () => domainOptions("bn_drift") },
      { key: "statistic", label: "Statistic", options: () => statistics },
      LOG,
    ],
    cards: [
      { needs: ["statistic", "layer"], wide: true, title: (s) => statisticLabel(s.statistic), caption: (s) => `${RUNS[Number(s.run)].name}${throughBatchNorm(s.domain)}, every layer`, draw: drawHeatmap, moves: "line", line: heatmapLook, pick: true },
      { needs: ["statistic", "layer"], wide: true, title: (s) => statisticLabel(s.statistic), caption: curve, draw: (s) => drawCurves("bn_drift", s.layer, s.domain, s.statistic, axisLabel(s.statistic), s), moves: "line" },
      { needs: ["layer"], title: () => "Running means of sampled channels", caption: channel, draw: (s) => drawDomains(s, "mean"), moves: "all" },
      { needs: ["layer"], title: () => "Running variances of sampled channels", caption: channel, draw: (s) => drawDomains(s, "variance"), moves: "all" },
    ],
  };
}

function gapSection() {
  const kinds = { clean: "clean images", adversarial: "adversarial images" };
  const where = (s) => `${s.layer}${throughBatchNorm(s.domain)}, ${kinds[s.kind]}`;
  const channel = (s) => `${RUNS[Number(s.run)].name}, ${where(s)}, epoch ${epochName(s, "bn_gap")}`;
  const unit = (s, moment) => (s.scale ? `|Δ ${moment}| / running ${moment === "mean" ? "σ" : "σ²"}` : `|Δ ${moment}|`);
  const gap = (moment) => ({
    needs: ["layer"], title: () => `Gap in ${moment}`, caption: where, moves: "line",
    draw: (s) => drawCurves("bn_gap", s.layer, s.domain, `${s.kind}_${s.scale}${moment}_gap`, unit(s, moment), s),
  });
  return {
    id: "bn_gap",
    state: { ...batchNormDefaults("bn_gap"), kind: "adversarial", scale: "relative_" },
    nothing: NOTHING_YET,
    slider: true,
    controls: [
      runControl("bn_gap", "Run of the channels"),
      { key: "layer", label: "Layer", options: () => layerOptions("bn_gap") },
      { key: "domain", label: "BatchNorm domain", options: () => domainOptions("bn_gap") },
      { key: "kind", label: "Probe images", options: () => Object.entries(kinds).map(([value, label]) => [value, label.replace(" images", "")]) },
      { key: "scale", label: "Gap", options: () => [["relative_", "relative"], ["", "absolute"]] },
      LOG,
    ],
    cards: [
      gap("mean"),
      gap("variance"),
      { needs: ["layer"], title: () => "Batch means and running means", caption: channel, draw: (s) => drawBatches(s, "mean"), moves: "all" },
      { needs: ["layer"], title: () => "Batch variances and running variances", caption: channel, draw: (s) => drawBatches(s, "variance"), moves: "all" },
    ],
  };
}
