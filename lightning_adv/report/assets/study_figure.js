// A plot of a study: its rows put together by horizontal axis, colour and panel, and averaged over what is left.

const DECADES = 30; // numbers that differ by such a factor need a logarithmic axis
const MOST_NAMED = 14; // lines in a legend; the others are named where the pointer is

function meanOf(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// A value that is a number says little without what it is of.
function valueName({ name, values, numbers }, place) {
  return numbers ? `${name} ${values[place]}` : values[place];
}

function partsOf(value) {
  return value === undefined || value === "none" ? [] : value.split("+");
}

function byKey(rows, key) {
  const found = new Map();
  for (const row of rows) found.set(key(row), [...(found.get(key(row)) ?? []), row]);
  return [...found].sort(([a], [b]) => a - b);
}

class StudyFigure {
  constructor(study, { kind, x, lines, panels }, measure, rows) {
    this.study = study;
    this.kind = kind;
    this.measure = study.measures.get(measure);
    this.across = study.measures.get(x); // of a scatter
    this.x = study.axis.get(x);
    this.colours = kind === "with_without" ? undefined : study.axis.get(lines);
    this.panels = study.axis.get(panels);
    this.known = rows.filter((row) => this.measure.values[row] !== null && (!this.across || this.across.values[row] !== null));
    this.lost = rows.length - this.known.length;
    this.parts = kind === "with_without" ? [...new Set(this.x.values.flatMap(partsOf))] : [];
    this.named = new Set();
    this.intervals = false;
    this.averaged = new Set();
  }

  build() {
    const { known } = this;
    if (!known.length) return { note: "None of the rows that are shown has this yet.", caption: "" };
    const references = this.across ? [] : known.filter((row) => this.study.isReference(row));
    const drawn = known.filter((row) => !references.includes(row));
    // What has no such panel, as a reference, belongs to each.
    const everywhere = (row) => this.panels !== undefined && this.panels.at[row] < 0;
    const places = byKey(drawn.filter((row) => !everywhere(row)), (row) => this.panels?.at[row] ?? 0);
    if (!places.length) places.push([-1, []]);
    const wide = places.length > 1 || (this.kind !== "scatter" && (this.x?.values.length ?? 0) > 12);
    const layout = this.layout(places.length, wide);
    const data = [];
    places.forEach(([panel, rows], k) => {
      const axes = { xaxis: `x${k ? k + 1 : ""}`, yaxis: `y${k ? k + 1 : ""}` };
      if (places.length > 1) layout.annotations.push(this.title(valueName(this.panels, panel), axes));
      const here = [...rows, ...drawn.filter(everywhere)];
      const constant = this.x && this.kind !== "with_without" ? here.filter((row) => this.x.at[row] < 0) : [];
      const own = here.filter((row) => !constant.includes(row));
      const traces = this.kind === "with_without" ? this.boxes(own) : this.across ? this.scatter(own) : this.series(own);
      data.push(...traces.map((trace) => ({ ...trace, ...axes })));
      const ofPanel = references.filter((row) => !this.panels || this.panels.at[row] < 0 || this.panels.at[row] === panel || places.length === 1);
      this.constants(byKey(constant, (row) => this.place(row)).map(([line, rows]) => [this.colours ? this.nameOf(line) : `without ${this.x.name}`, rows]), axes, layout);
      if (ofPanel.length) this.constants([[Object.values(this.study.figure.reference).join(", "), ofPanel]], axes, layout);
    });
    layout.showlegend = this.named.size > 1 && this.named.size <= MOST_NAMED;
    if (layout.showlegend && innerWidth < 500 && !printing) layout.height += 19 * this.named.size; // each has a line of its own
    return { data, layout, wide, caption: this.caption() };
  }

  place(row) {
    return this.colours?.at[row] ?? 0;
  }

  nameOf(line) {
    if (!this.colours) return "";
    return line < 0 ? `without ${this.colours.name}` : valueName(this.colours, line);
  }

  // How a line is drawn, and whether it is the first of its name, which the legend shows.
  form(line, kind) {
    const name = this.nameOf(line);
    const first = !this.named.has(name);
    this.named.add(name);
    const form = PAGE.places[Math.max(0, line) % PAGE.places.length][kind];
    return { ...form, meta: "mean", name: plain(name), legendgroup: `line ${line}`, showlegend: first, hovertemplate: "%{hovertext}<extra></extra>" };
  }

  // The mean over some rows, and what is said of it; what they differ in is what is averaged over.
  point(rows, measure = this.measure) {
    for (const { name, at } of this.study.axes) if (new Set(rows.map((row) => at[row])).size > 1) this.averaged.add(name);
    return meanOf(rows.map((row) => measure.values[row]));
  }

  told(rows, name = "") {
    const unit = (measure) => (measure.share ? " %" : "");
    const say = (measure) => {
      const [low, high] = [measure.low?.[rows[0]], measure.high?.[rows[0]]];
      const between = rows.length === 1 && Number.isFinite(low) && Number.isFinite(high) ? ` (${low.toFixed(1)} to ${high.toFixed(1)})` : "";
      return `${plain(measure.title)}: ${Number(meanOf(rows.map((row) => measure.values[row])).toPrecision(4))}${unit(measure)}${between}`;
    };
    const head = rows.length === 1 ? this.study.labels[rows[0]] : `${name}, mean of ${rows.length}`;
    return [`<b>${plain(head)}</b>`, ...[this.across, this.measure].filter(Boolean).map(say)].join("<br>");
  }

  errors(groups, measure) {
    const of = (rows, end) => (rows.length === 1 ? measure[end]?.[rows[0]] : null) ?? null;
    const distance = (end) => groups.map((rows) => (of(rows, end) === null ? 0 : Math.abs(of(rows, end) - measure.values[rows[0]])));
    const [array, arrayminus] = [distance("high"), distance("low")];
    if (![...array, ...arrayminus].some(Boolean)) return undefined;
    this.intervals = true;
    return { type: "data", symmetric: false, array, arrayminus, thickness: 1.2, width: 0 };
  }

  // Whether the horizontal axis is one of numbers: a zero beside numbers of several sizes has no place on one.
  get numeric() {
    const numbers = this.kind === "lines" ? this.x?.numbers : null;
    return numbers ? numbers[0] > 0 || numbers[0] < 0 || numbers.length < 3 || numbers.at(-1) / numbers[1] < DECADES : false;
  }

  // Names stand side by side at 0, 1, 2, ...: Plotly's own categories go wrong with a name as `constructor`.
  at(place) {
    return this.numeric ? this.x.numbers[place] : place;
  }

  // Lines or bars: a point for each value of the horizontal axis, the single rows of a mean beside it.
  series(rows) {
    const bars = this.kind === "bars";
    return byKey(rows, (row) => this.place(row)).flatMap(([line, own]) => {
      const groups = byKey(own, (row) => this.x?.at[row] ?? 0);
      const form = { ...this.form(line, bars ? "bar" : "line"), ...(bars ? { offsetgroup: String(line) } : { mode: groups.length < 40 ? "lines+markers" : "lines" }) };
      const name = (place) => [this.nameOf(line), this.x && valueName(this.x, place)].filter(Boolean).join(", ");
      const sets = groups.map(([, each]) => each);
      const mean = { ...form, x: groups.map(([place]) => this.at(place)), y: sets.map((each) => this.point(each)), error_y: this.errors(sets, this.measure), customdata: sets, hovertext: groups.map(([place, each]) => this.told(each, name(place))) };
      const several = groups.filter(([, each]) => each.length > 1);
      return several.length ? [this.singles(several, form, line), mean] : [mean]; // the mean above its runs
    });
  }

  singles(groups, form, line) {
    const rows = groups.flatMap(([place, each]) => each.map((row) => [place, row]));
    const bars = this.kind === "bars";
    const marker = { size: 5, opacity: bars ? 0.9 : 0.45, color: form.marker.color, ...(bars ? { color: "#8a929c", line: { width: 0.5, color: "#ffffff" } } : {}) };
    return {
      type: "scatter", mode: "markers", meta: "run", marker, name: form.name, legendgroup: form.legendgroup, showlegend: false, hovertemplate: form.hovertemplate, ...(bars ? { offsetgroup: String(line) } : {}),
      x: rows.map(([place]) => this.at(place)), y: rows.map(([, row]) => this.measure.values[row]), customdata: rows.map(([, row]) => [row]), hovertext: rows.map(([, row]) => this.told([row])),
    };
  }

  // One measure over another: a point for each row of the grid, the seeds averaged.
  scatter(rows) {
    const seedless = this.study.axes.filter(({ name }) => name !== "seed");
    return byKey(rows, (row) => this.place(row)).flatMap(([line, own]) => {
      const sets = this.bySettings(own, seedless);
      const form = { ...this.form(line, "line"), mode: "markers" };
      const mean = { ...form, marker: { ...form.marker, size: 9 }, x: sets.map((each) => this.point(each, this.across)), y: sets.map((each) => this.point(each)), error_x: this.errors(sets, this.across), error_y: this.errors(sets, this.measure), customdata: sets, hovertext: sets.map((each) => this.told(each, this.settings(each[0], seedless))) };
      const singles = sets.filter((each) => each.length > 1).flat();
      const small = { ...form, meta: "run", showlegend: false, marker: { size: 4, opacity: 0.45, color: form.marker.color }, x: singles.map((row) => this.across.values[row]), y: singles.map((row) => this.measure.values[row]), customdata: singles.map((row) => [row]), hovertext: singles.map((row) => this.told([row])) };
      return singles.length ? [small, mean] : [mean];
    });
  }

  settings(row, axes) {
    return axes.map(({ values, at }) => values[at[row]]).filter(Boolean).join(", ");
  }

  bySettings(rows, axes) {
    const found = new Map();
    for (const row of rows) {
      const key = axes.map(({ at }) => at[row]).join();
      found.set(key, [...(found.get(key) ?? []), row]);
    }
    return [...found.values()];
  }

  // Siddiqui & Breuel (2021), figure 6: the networks with and those without each part, all single ones, and their medians.
  boxes(rows) {
    const sets = rows.map((row) => [row, partsOf(this.x.values[this.x.at[row]])]);
    const parts = this.parts;
    return ["with it", "without it"].map((name, k) => {
      this.named.add(name);
      const { marker } = PAGE.places[k].points;
      const own = parts.flatMap((part) => sets.filter(([, of]) => of.includes(part) === (k === 0)).map(([row]) => [part, row]));
      return {
        type: "box", name, legendgroup: name, offsetgroup: name, showlegend: true, boxpoints: "all", jitter: 0.6, pointpos: 0, line: { width: 1.5 }, fillcolor: "rgba(0,0,0,0)",
        marker: { color: marker.color, size: 5, opacity: 0.65 }, hoveron: "points", hovertemplate: "%{hovertext}<extra></extra>",
        x: own.map(([part]) => parts.indexOf(part)), y: own.map(([, row]) => this.measure.values[row]), customdata: own.map(([, row]) => [row]), hovertext: own.map(([, row]) => this.told([row])),
      };
    });
  }

  // What does not depend on the horizontal axis, as a line through all of it.
  constants(groups, { xaxis, yaxis }, layout) {
    for (const [name, rows] of groups) {
      const y = this.point(rows);
      layout.shapes.push({ type: "line", xref: `${xaxis} domain`, yref: yaxis, x0: 0, x1: 1, y0: y, y1: y });
      layout.annotations.push({ text: plain(name), xref: `${xaxis} domain`, yref: yaxis, x: 1, y, xanchor: "right", yanchor: "bottom", showarrow: false, font: { size: 11 } });
    }
  }

  title(text, { xaxis, yaxis }) {
    return { text: `<b>${plain(text)}</b>`, xref: `${xaxis} domain`, yref: `${yaxis} domain`, x: 0, y: 1, xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 12 } };
  }

  layout(count, wide) {
    const narrow = innerWidth < 500 && !printing;
    const across = Math.min(count, narrow ? 1 : wide ? 3 : 2);
    const down = Math.ceil(count / across);
    const each = count > 1 ? 250 : 320;
    const height = down * each + 70;
    const [gapX, gapY] = [across > 1 ? 0.04 : 0, 76 / (down * each)];
    const [width, tall] = [(1 - gapX * (across - 1)) / across, (1 - gapY * (down - 1)) / down];
    const layout = { height, shapes: [], annotations: [], margin: { l: 52, r: 12, t: count > 1 ? 48 : 34, b: 44 }, boxmode: "group", barmode: "group", ...(this.kind === "bars" ? { scattermode: "group" } : {}), bargap: 0.25, hovermode: "closest", legend: { orientation: "h", x: 0, y: 1 + 22 / (down * each), yanchor: "bottom" } };
    for (let k = 0; k < count; k += 1) {
      const [column, line] = [k % across, Math.floor(k / across)];
      const own = k ? k + 1 : "";
      const top = 1 - line * (tall + gapY);
      const last = k + across >= count;
      layout[`xaxis${own}`] = { ...this.horizontal(), ...(last ? {} : { title: {} }), anchor: `y${own}`, domain: [column * (width + gapX), column * (width + gapX) + width], ...(k ? { matches: "x" } : {}) };
      layout[`yaxis${own}`] = { ...(column ? { showticklabels: false } : { title: { text: this.measure.axis } }), ...(this.measure.share || this.kind === "bars" ? { rangemode: "tozero" } : {}), anchor: `x${own}`, domain: [Math.max(0, top - tall), top], ...(k ? { matches: "y" } : {}) };
    }
    return layout;
  }

  horizontal() {
    if (this.across) return { title: { text: this.across.axis } };
    const title = { text: plain(this.x?.name ?? "") };
    if (!this.x) return { title, showticklabels: false, showgrid: false };
    const { numbers, values, ticks } = this.x;
    if (!this.numeric) {
      const texts = this.kind === "with_without" ? this.parts : ticks;
      const many = texts.length > 12 ? { tickangle: -90, tickfont: { size: 9 } } : {};
      return { title, range: [-0.6, texts.length - 0.4], tickvals: texts.map((_, k) => k), ticktext: texts.map(plain), showgrid: false, ...many };
    }
    const log = numbers[0] > 0 && numbers.at(-1) / numbers[0] >= DECADES;
    return { title, ...(log ? { type: "log" } : {}), ...(numbers.length <= 10 ? { tickvals: numbers, ticktext: values.map(plain) } : {}) };
  }

  // What is averaged over is said, and what the small points and the lines are.
  caption() {
    const parts = [];
    const values = (name) => {
      const axis = this.study.axis.get(name);
      const own = [...new Set(this.known.map((row) => axis.at[row]))].sort((a, b) => a - b).map((place) => axis.values[place]).filter(Boolean);
      return own.length > 1 && own.length <= 6 ? ` ${own.join(", ")}` : "";
    };
    if (this.kind === "with_without") parts.push("boxes: medians and quartiles of the networks with and without each part, which are the points");
    if (this.averaged.size) parts.push(`means over ${[...this.averaged].map((name) => `${name}${values(name)}`).join(" and ")}; small points: single runs`);
    if (this.intervals) parts.push(this.averaged.size ? "lines beside points: 95 % intervals of single runs" : "lines beside points: 95 % intervals");
    if (this.named.size > MOST_NAMED) parts.push(`${this.named.size} values of ${this.colours.name}, named where the pointer is`);
    if (this.lost) parts.push(`${this.lost} ${this.lost === 1 ? "row has" : "rows have"} no number yet`);
    return parts.join("; ");
  }
}
