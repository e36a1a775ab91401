"use strict";
// What the page holds. The tables of the analyses are read when they are first drawn.

const PAGE = JSON.parse(document.getElementById("report-data").textContent);
const RUNS = PAGE.runs.map((run, index) => ({ ...run, index, shown: true }));
const tables = new Map();

function shownRuns(analysis) {
  return RUNS.filter((run) => run.shown && (!analysis || run.analyses.includes(analysis)));
}

function tableOf(run, analysis) {
  const id = `${analysis}-${run.index}`;
  if (!tables.has(id)) tables.set(id, readTable(JSON.parse(document.getElementById(id).textContent)));
  return tables.get(id);
}

function readTable(packed) {
  const { epochs, steps, names, domains, statistics, keys } = packed;
  const bytes = Uint8Array.from(atob(packed.values), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const values = Float32Array.from({ length: bytes.length / 4 }, (_, k) => view.getFloat32(4 * k, true));
  const looks = epochs.length;
  const series = new Map();
  for (let k = 0; 3 * k < keys.length; k += 1) {
    const key = [names[keys[3 * k]], domains[keys[3 * k + 1]], statistics[keys[3 * k + 2]]].join("\0");
    series.set(key, values.subarray(k * looks, (k + 1) * looks));
  }
  return { epochs, steps, names, domains, statistics, series, x: positions(epochs) };
}

// A look at the end of epoch e stands at e; several looks in it stand between e - 1 and e, the last one at e.
function positions(epochs) {
  const count = new Map();
  const seen = new Map();
  for (const epoch of epochs) count.set(epoch, (count.get(epoch) ?? 0) + 1);
  return epochs.map((epoch) => {
    const before = seen.get(epoch) ?? 0;
    seen.set(epoch, before + 1);
    return epoch - 1 + (before + 1) / count.get(epoch);
  });
}

// What has no domain of its own, a network without domains or a convolution, is shown whichever domain is chosen.
function seriesOf(table, name, domain, statistic) {
  const found = (of) => table.series.get([name, of, statistic].join("\0"));
  return found(domain) ?? found("") ?? null;
}

// The last look at or before a position; -1 where there was none yet.
function lookAt(table, x) {
  let found = -1;
  for (let k = 0; k < table.x.length; k += 1) if (table.x[k] <= x + 1e-9) found = k;
  return found;
}

function union(lists) {
  return [...new Set(lists.flat())];
}

// The union of lists in an order that keeps the order of each; where two contradict, that of the longer list.
function merge(lists) {
  const rest = [...new Map(lists.map((list) => [list.join("\0"), [...list]])).values()].sort((a, b) => b.length - a.length);
  const left = union(rest);
  const merged = [];
  while (left.length) {
    const next = left.find((name) => rest.every((list) => list[0] === name || !list.includes(name))) ?? left[0];
    merged.push(next);
    for (const list of [left, ...rest]) if (list.includes(next)) list.splice(list.indexOf(next), 1);
  }
  return merged;
}

// The smallest and the largest; a loop, since a call takes only so many arguments.
function extremes(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) if (Number.isFinite(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return [low, high];
}

function finite(values) {
  return Array.from(values, (value) => (Number.isFinite(value) ? value : null));
}

// The channels of a layer whose statistics were written down: of `running_mean[17]` the 17.
function channelsOf(table, name, domain, statistic) {
  const found = [];
  for (const candidate of table.statistics) {
    const match = /^(.+)\[(\d+)\]$/.exec(candidate);
    if (match && match[1] === statistic && seriesOf(table, name, domain, candidate)) found.push(Number(match[2]));
  }
  return found.sort((a, b) => a - b);
}

function layersWithChannels(run, analysis) {
  const keys = [...tableOf(run, analysis).series.keys()].filter((key) => key.endsWith("]"));
  return union(keys.map((key) => key.split("\0")[0]));
}
