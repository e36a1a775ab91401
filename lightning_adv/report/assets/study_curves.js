// The training curves of the rows that were clicked on, one over the other.

class Curves {
  constructor(study) {
    this.study = study;
    this.packed = JSON.parse(document.getElementById(`${study.id}-runs`).textContent);
    this.runs = new Map(Object.entries(this.packed.runs));
    this.metrics = new Map(this.packed.metrics.map((metric, k) => [metric.name, { ...metric, k }]));
    this.rows = new Map(); // of each its place, which has a colour, a dash and a symbol
    this.element = document.getElementById(`${study.id}-curves`);
    this.element?.addEventListener("input", () => (this.draw(), save()));
  }

  // The run of a row: of the stage that is chosen.
  key(row) {
    return this.study.points[row].get(this.element.querySelector("form select").value);
  }

  add(rows) {
    const known = rows.filter((row) => this.study.points[row].size && !this.rows.has(row));
    if (!known.length) return;
    const first = this.rows.size === 0;
    for (const row of known) {
      if (this.rows.size >= PAGE.places.length) this.rows.delete(this.rows.keys().next().value);
      const used = new Set(this.rows.values());
      this.rows.set(row, PAGE.places.findIndex((_, place) => !used.has(place)));
    }
    this.draw();
    if (first) this.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
    save();
  }

  drop(row) {
    this.rows.delete(row);
    this.draw();
    save();
  }

  // What a reload keeps: rows by what tells them apart, since a study may have got others.
  compared() {
    return [...this.rows.keys()].map((row) => this.study.labels[row]);
  }

  compare(labels) {
    for (const label of labels) {
      const row = this.study.labels.indexOf(label);
      if (row >= 0 && this.study.points[row].size) this.rows.set(row, this.rows.size);
    }
  }

  draw() {
    if (!this.element) return;
    this.study.lines.forEach((line, row) => {
      const box = line.querySelector("input");
      if (box) box.checked = this.rows.has(row);
    });
    this.element.querySelector(".chosen").replaceChildren(...[...this.rows].map(([row, place]) => this.chip(row, place)));
    this.element.querySelector(".grid").hidden = !this.rows.size;
    if (!this.rows.size) return;
    for (const plot of this.element.querySelectorAll(".plot")) render(plot, this.figure(plot.parentElement.querySelector("select").value));
  }

  chip(row, place) {
    const item = document.createElement("li");
    item.innerHTML = '<span></span><b></b> <code></code> <button type="button">×</button>';
    const [mark, name, folder, close] = item.children;
    const { line } = PAGE.places[place];
    mark.textContent = "●";
    mark.style.color = line.line.color;
    name.textContent = this.study.labels[row];
    folder.textContent = this.study.folders.get(this.key(row)) ?? "no run of this stage";
    close.setAttribute("aria-label", `Without ${this.study.labels[row]}`);
    close.addEventListener("click", () => this.drop(row));
    return item;
  }

  // The points of a metric of a run; null where it has none.
  points(key, metric) {
    const found = this.runs.get(key)?.find(([place]) => place === metric.k);
    if (!found) return null;
    const y = unpack(found[2]).map((value) => (value === null ? null : metric.factor * value));
    return { x: found[1] ? unpack(found[1]) : y.map((_, k) => k), y };
  }

  figure(name) {
    const metric = this.metrics.get(name);
    const data = [...this.rows].flatMap(([row, place]) => {
      const points = this.points(this.key(row), metric);
      const form = { ...PAGE.places[place].line, meta: undefined, name: plain(this.study.labels[row]), hovertemplate: "<b>%{fullData.name}</b><br>epoch %{x:.4~g}: %{y:.4~g}<extra></extra>" };
      return points ? [{ ...form, ...points, mode: points.x.length < 40 ? "lines+markers" : "lines" }] : [];
    });
    if (!data.length) return { note: "No run that is chosen has logged this." };
    const [first, last] = extremes(data.map(({ x }) => x));
    const ticks = last - first < 8 ? { dtick: 1, tick0: 0 } : { nticks: 8, tickformat: "d" };
    const log = metric.group === "Learning rate" && suitsLog(data.map(({ y }) => y));
    const xaxis = { title: { text: "Epoch" }, ...ticks, ...(last > first ? {} : { range: [first - 1, first + 1] }) };
    const yaxis = { title: { text: plain(metric.axis) }, ...(log ? { type: "log" } : { rangemode: "tozero" }) };
    return { data, layout: { ...PAGE.forms.curve.layout, xaxis, yaxis } };
  }
}
