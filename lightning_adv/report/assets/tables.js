// A section for each table: what is chosen in its form is drawn from the numbers of the runs.

const read = new Map();

function tableOf(run, section) {
  const id = `table-${section.table}-${run.index}`;
  if (!read.has(id)) {
    const packed = JSON.parse(document.getElementById(id).textContent);
    const { names, domains, statistics, keys } = packed;
    const series = new Map(packed.values.map((values, k) => [[names[keys[3 * k]], domains[keys[3 * k + 1]], statistics[keys[3 * k + 2]]].join("\0"), values]));
    const channels = new Map();
    for (const key of series.keys()) {
      const [name, , measured] = key.split("\0");
      const [, statistic, channel] = /^(.+)\[(\d+)\]$/.exec(measured) ?? [];
      const place = [name, statistic].join("\0");
      if (statistic) channels.set(place, (channels.get(place) ?? new Set()).add(Number(channel)));
    }
    read.set(id, { ...packed, series, channels });
  }
  return read.get(id);
}

// The channels of a layer whose statistics were written down, through any domain: of `running_mean[17]` the 17.
function channelsOf(table, name, statistic) {
  return [...(table.channels.get([name, statistic].join("\0")) ?? [])].sort((a, b) => a - b);
}

// The numbers of a series; null where there is none. They are read when they are first asked for.
function valuesOf(table, ...key) {
  const found = table.series.get(key.join("\0"));
  if (typeof found !== "string") return found ?? null;
  const values = unpack(found);
  table.series.set(key.join("\0"), values);
  return values;
}

// What has no domain of its own, a network without domains or a convolution, is shown whichever domain is chosen.
function seriesOf(table, name, { domain, statistic }) {
  return valuesOf(table, name, domain, statistic) ?? valuesOf(table, name, "", statistic);
}

// The last look at or before a position; -1 where there was none yet.
function lookAt(places, x) {
  return places.findLastIndex((place) => place <= x + 1e-9);
}

function lookName({ axis }, x) {
  return `${axis === "epochs" ? "epoch" : "step"} ${Number(x.toFixed(3))}`;
}

function through(domain) {
  return domain ? `, ${domain} BatchNorm` : "";
}

class Section {
  constructor(content) {
    Object.assign(this, content);
    this.layers = new Map(content.layers); // not an object, which would put a layer 0 first
    this.id = `table-${this.table}`;
    this.element = document.getElementById(this.id);
    this.form = this.element.querySelector("form");
    this.fields = this.form.elements;
    this.plots = [...this.element.querySelectorAll(".plot")];
    this.having = this.runs.map((index) => RUNS[index]);
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", ({ target }) => {
      if (target.name === "axis") this.moveTo(this.last ? Infinity : 0);
      if (target.name === "look") this.stop();
      this.draw(target.name);
      save();
    });
    this.form.querySelector("button").addEventListener("click", () => (this.timer ? this.stop() : this.play()));
    this.moveTo(Infinity);
  }

  // The places of the looks of all runs on the axis that is chosen.
  get places() {
    const all = this.having.flatMap((run) => tableOf(run, this)[this.fields.axis.value]);
    return [...new Set(all)].sort((a, b) => a - b);
  }

  get last() {
    return Number(this.fields.look.value) === Number(this.fields.look.max);
  }

  moveTo(x) {
    const places = this.places;
    this.fields.look.max = places.length - 1;
    this.fields.look.value = Math.max(0, lookAt(places, x));
  }

  play() {
    const slider = this.fields.look;
    if (this.last) slider.value = -1;
    else slider.stepUp();
    this.draw("look");
    this.timer = setInterval(() => {
      if (this.last) this.stop();
      else slider.stepUp();
      this.draw("look");
    }, Math.max(80, Math.min(600, 12000 / slider.max)));
    this.tell();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.tell();
  }

  // What is chosen, and what follows from it.
  choice() {
    const { statistic, name, domain, run, axis, log, look } = Object.fromEntries([...this.fields].filter((field) => field.name).map((field) => [field.name, field.type === "checkbox" ? field.checked : field.value]));
    return { statistic, name, domain, axis, log, run: RUNS[Number(run)], x: this.places[Number(look)], axisTitle: this.axes[statistic], title: this.fields.statistic.selectedOptions[0].text };
  }

  // A layer without the statistic cannot be chosen, and a run that is chosen brings a layer of its own.
  adjust(changed) {
    const chosen = this.choice();
    const has = (run, name) => seriesOf(tableOf(run, this), name, chosen) !== null;
    for (const option of this.fields.name.options) option.disabled = !this.having.some((run) => has(run, option.value));
    const wanted = changed === "run" ? [chosen.run] : this.having;
    if (wanted.some((run) => has(run, chosen.name))) return;
    const options = [...this.fields.name.options].map((option) => option.value).filter((name) => wanted.some((run) => has(run, name)));
    const sampled = options.find((name) => this.channels.some(({ running }) => wanted.some((run) => channelsOf(tableOf(run, this), name, running).length)));
    if (options.length) this.fields.name.value = sampled ?? options[0];
  }

  tell() {
    const { x, axis } = this.choice();
    const unit = axis === "epochs" ? "Epoch" : "Step";
    const [word, output] = this.form.querySelector(".slider label").children;
    word.textContent = unit;
    output.textContent = String(Number(x.toFixed(3)));
    this.fields.look.setAttribute("aria-valuetext", `${unit.toLowerCase()} ${output.textContent}`);
    const button = this.form.querySelector("button");
    button.textContent = this.timer ? "❚❚" : "▶";
    button.setAttribute("aria-label", this.timer ? "Pause" : "Play");
    this.form.querySelector(".slider").hidden = this.fields.look.max === "0";
  }

  // Where the slider is, on a plot over the looks; of one run the last look before it.
  line(chosen, table) {
    const x = table ? table[chosen.axis][lookAt(table[chosen.axis], chosen.x)] : chosen.x;
    return x === undefined ? [] : [{ type: "line", yref: "paper", x0: x, x1: x, y0: 0, y1: 1 }];
  }

  draw(changed) {
    if (changed !== "look") this.adjust(changed);
    this.tell();
    const chosen = this.choice();
    let picture = 0;
    for (const plot of this.plots) {
      const kind = plot.dataset.plot;
      if (changed === "look" && plot.layout?.shapes && (kind === "heatmap" || kind === "curve")) {
        Plotly.relayout(plot, { shapes: this.line(chosen, kind === "heatmap" && tableOf(chosen.run, this)) });
      } else render(plot, kind === "channels" ? this.drawChannels(chosen, this.channels[picture++]) : this[kind](chosen));
      if (kind === "heatmap" && plot.on && !plot.picks) plot.picks = plot.on("plotly_click", ({ points: [point] }) => this.pick(point));
    }
  }

  // A click on the heat map chooses its layer and look.
  pick({ pointIndex: [row, column] }) {
    const { run, axis } = this.choice();
    this.fields.name.value = this.rows[row];
    this.moveTo(tableOf(run, this)[axis][column]);
    this.draw();
    save();
  }

  looksAxis(chosen, places) {
    const [first, last] = extremes([places, [chosen.x]]);
    const whole = chosen.axis === "epochs" && last - first < 8 ? { dtick: 1, tick0: 0 } : { nticks: 8, tickformat: "d" };
    return { title: { text: chosen.axis === "epochs" ? "Epoch" : "Optimizer step" }, ...whole, ...(last > first ? {} : { range: [first - 1, first + 1] }) };
  }

  valueAxis(chosen, lists) {
    const title = { text: plain(chosen.axisTitle) };
    return { title, ...(chosen.log && suitsLog(lists) ? { type: "log" } : { rangemode: "tozero" }) };
  }

  curve(chosen) {
    const caption = `${chosen.name || "the whole network"}${through(chosen.domain)}, every run`;
    const data = [];
    for (const run of this.having.filter((each) => each.shown)) {
      const table = tableOf(run, this);
      const y = seriesOf(table, chosen.name, chosen);
      if (y) data.push({ ...run.line, x: table[chosen.axis], y, customdata: table.steps, mode: y.length < 40 ? "lines+markers" : "lines" });
    }
    if (!data.length) return { note: NOTHING_SHOWN, title: chosen.title, caption };
    const { layout } = PAGE.forms.curve;
    const xaxis = this.looksAxis(chosen, data.flatMap(({ x }) => x));
    const yaxis = this.valueAxis(chosen, data.map(({ y }) => y));
    return { data, layout: { ...layout, xaxis, yaxis, shapes: this.line(chosen) }, title: chosen.title, caption };
  }

  heatmap(chosen) {
    const { run, domain, title } = chosen;
    const table = tableOf(run, this);
    let caption = `${run.name}${through(domain)}, every layer`;
    this.rows = table.names.filter((name) => name && seriesOf(table, name, chosen));
    if (!this.rows.length) return { note: `${run.name} has no “${title}”.`, title, caption };
    const values = this.rows.map((name) => seriesOf(table, name, chosen));
    const signed = extremes(values)[0] < 0;
    const log = chosen.log && suitsLog(values);
    if (log) caption += "; colours: log₁₀";
    const { data: [form], layout } = PAGE.forms.heatmap;
    const narrow = innerWidth < 500 && !printing;
    const trace = {
      ...form, ...(signed ? { colorscale: "RdBu", zmid: 0 } : { colorscale: "Viridis" }),
      x: table[chosen.axis], y: this.rows.map(plain), customdata: values,
      z: log ? values.map((row) => row.map((value) => (value > 0 ? Math.log10(value) : null))) : values,
      colorbar: { title: { text: narrow ? "" : `${log ? "log₁₀ of " : ""}${plain(chosen.axisTitle)}` } },
    };
    const yaxis = { ...layout.yaxis, ...this.ticks(this.rows, 45), autorange: "reversed" };
    const height = Math.max(240, Math.min(900, 90 + 17 * this.rows.length));
    return { data: [trace], title, caption, layout: { ...layout, height, yaxis, xaxis: { ...layout.xaxis, ...this.looksAxis(chosen, trace.x) }, shapes: this.line(chosen, table) } };
  }

  // Of many names as many as there is room for.
  ticks(names, most) {
    const told = names.filter((_, k) => k % Math.ceil(names.length / most) === 0);
    return { tickvals: told.map(plain), ticktext: told.map((name) => plain(this.layers.get(name))) };
  }

  // The statistic of every layer at the slider's look, or in the last one before it.
  profile(chosen) {
    const { title } = chosen;
    const caption = `every layer${through(chosen.domain)}, ${lookName(chosen, chosen.x)}`;
    const looked = this.having.filter((run) => run.shown).map((run) => {
      const table = tableOf(run, this);
      const now = lookAt(table[chosen.axis], chosen.x);
      return { run, now, at: table[chosen.axis][now], values: (name) => seriesOf(table, name, chosen) };
    }).filter(({ now }) => now >= 0);
    const names = [...this.layers.keys()].filter((name) => looked.some(({ values }) => values(name)));
    if (!names.length) return { note: "No run that is shown has this by layer yet.", title, caption };
    const all = looked.flatMap(({ values }) => names.map(values).filter(Boolean)); // of all looks: the axis holds still
    const log = chosen.log && suitsLog(all);
    const kind = looked.length <= 4 && !log ? "bar" : "points";
    const late = looked.some(({ at }) => Math.abs(at - chosen.x) > 1e-9);
    const data = looked.map(({ run, now, at, values }) => {
      const own = names.filter(values);
      return { ...run[kind], x: own.map(plain), y: own.map((name) => values(name)[now]), customdata: own.map((name) => `${plain(name)}, ${lookName(chosen, at)}`) };
    });
    const { layout } = PAGE.forms.profile;
    const [low, high] = extremes(all);
    const range = log ? [Math.log10(extremes(all.map((values) => values.filter((value) => value > 0)))[0]) - 0.1, Math.log10(high) + 0.1] : [Math.min(0, 1.06 * low), Math.max(0, 1.06 * high)];
    const yaxis = { ...this.valueAxis({ ...chosen, log }, all), ...(low <= high ? { range } : {}) };
    const xaxis = { ...layout.xaxis, ...this.ticks(names, innerWidth < 500 ? 16 : 28), categoryorder: "array", categoryarray: names.map(plain), tickangle: names.length > 6 ? -60 : 0 };
    return { data, title, caption: `${caption}${late ? ", or the last look before it" : ""}`, layout: { ...layout, xaxis, yaxis } };
  }

  // Figures 6.5 and 6.6 of Xie (2020): the running statistics of single channels, of each domain or beside those of batches.
  drawChannels(chosen, { title, axis, running, batches }) {
    const { run, name } = chosen;
    const kind = chosen.statistic.startsWith("clean_") ? "clean" : "adversarial";
    const table = tableOf(run, this);
    const now = lookAt(table[chosen.axis], chosen.x);
    const when = now < 0 ? "" : `, ${lookName(chosen, table[chosen.axis][now])}`;
    const caption = `${run.name}, ${name}${batches ? `${through(chosen.domain)}, ${kind} images` : ""}${when}`;
    const channels = channelsOf(table, name, running);
    if (now < 0) return { note: `The first look at ${run.name} was later.`, title, caption };
    if (!channels.length) {
      const sampled = table.names.filter((each) => channelsOf(table, each, running).length).join(", ");
      return { note: sampled ? `Of ${run.name}, single channels were written down of ${sampled}; not of ${name}.` : `No single channels were written down of ${run.name}.`, title, caption };
    }
    const of = (statistic, domain) => channels.map((channel) => seriesOf(table, name, { domain, statistic: `${statistic}[${channel}]` }));
    const [joins, ...rest] = PAGE.forms.channels.data;
    const [mark, before] = rest.splice(-2);
    const sets = [];
    const add = (form, label, series, at = now) => series.some(Boolean) && sets.push({ form, label, series, y: series.map((values) => values?.[at] ?? null) });
    if (batches) {
      for (let k = 0; k === 0 || of(`${kind}_${batches}${k - 1}`, chosen.domain).some(Boolean); k += 1) add(rest[k % rest.length], `batch ${k}`, of(`${kind}_${batches}${k}`, chosen.domain));
      add(mark, "running", of(running, chosen.domain));
    } else {
      const domains = table.domains.filter((domain) => channels.some((channel) => valuesOf(table, name, domain, `${running}[${channel}]`)));
      if (domains.length === 1) add(before, "first look", of(running, domains[0]), 0);
      domains.forEach((domain, k) => add(rest[k % rest.length], domain || "this look", of(running, domain)));
    }
    const x = channels.map(String);
    const ends = x.map((_, k) => extremes([sets.map(({ y }) => y[k])]));
    const join = { ...joins, x: x.flatMap((each) => [each, each, null]), y: ends.flatMap(([low, high]) => (low <= high ? [low, high, null] : [null, null, null])) };
    const data = [join, ...sets.map(({ form, label, y }) => ({ ...form, name: plain(label), x, y }))];
    const [low, high] = extremes(sets.flatMap(({ series }) => series.filter(Boolean)));
    const space = 0.06 * (high - low || Math.abs(high) || 1);
    const { layout } = PAGE.forms.channels;
    const xaxis = { ...layout.xaxis, title: { text: "Channel" }, tickangle: x.length > 12 ? -90 : 0 };
    return { data, title, caption, layout: { ...layout, xaxis, yaxis: { title: { text: axis }, ...(low <= high ? { range: [low - space, high + space] } : {}) } } };
  }
}
