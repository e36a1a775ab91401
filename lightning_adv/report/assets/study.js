// A study: what is chosen in its menus, which of its rows are shown, its table, and the plots of its figure.

class Study {
  constructor(content) {
    Object.assign(this, content);
    // Not objects, which have a constructor whatever is in them.
    this.measures = new Map(Object.entries(content.measures));
    this.points = content.points.map((point) => new Map(Object.entries(point)));
    this.folders = new Map(Object.entries(content.folders));
    this.element = document.getElementById(this.id);
    [this.form, this.search] = [this.element.querySelector("form.figure"), this.element.querySelector("form.rows")];
    this.plots = [...this.element.querySelectorAll('[data-plot="study"]')];
    this.axis = new Map(this.axes.map((axis) => [axis.name, axis]));
    this.lines = [...this.element.querySelectorAll("tbody tr")]; // by row, in the order of the grid
    this.texts = this.lines.map((line) => line.textContent.toLowerCase());
    this.curves = new Curves(this);
    for (const form of this.element.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
    this.form?.addEventListener("input", ({ target }) => (this.adjust(target.name), this.draw(), save()));
    this.search.addEventListener("input", () => (this.draw(), save()));
    for (const plot of this.plots) plot.parentElement.querySelector("select").addEventListener("input", () => (this.draw(), save()));
    this.before = this.choice();
    this.addTable();
  }

  // Which columns are drawn as what; without measures there is no figure.
  choice() {
    const fields = this.form?.elements;
    return Object.fromEntries(["kind", "x", "lines", "panels"].map((name) => [name, fields?.[name]?.value ?? ""]));
  }

  // A scatter has a measure on its horizontal axis, sets have parts, and nothing is shown in two ways at once.
  adjust(changed) {
    const { kind, x, lines, panels } = this.form.elements;
    if (changed === "x") kind.value = this.measures.has(x.value) ? "scatter" : kind.value === "scatter" ? "lines" : kind.value;
    if (changed === "x" && kind.value === "with_without" && !this.axis.get(x.value)?.parts) kind.value = "lines";
    const fits = (name) => (kind.value === "scatter" ? this.measures.has(name) : kind.value === "with_without" ? this.axis.get(name)?.parts : name === "" || this.axis.has(name));
    const options = [...x.options].map((option) => option.value);
    if (!fits(x.value)) x.value = options.filter(fits).find((name) => this.plots.every((plot) => this.measureOf(plot) !== name)) ?? options.find(fits);
    for (const [one, other] of [[x, lines], [lines, x], [x, panels], [panels, x], [lines, panels], [panels, lines]]) {
      if (one.name !== changed || one.value === "" || one.value !== other.value) continue;
      const free = this.before[changed];
      other.value = other === x && !fits(free) ? options.find((name) => fits(name) && name !== one.value) ?? one.value : [...other.options].some((option) => option.value === free) ? free : "";
    }
  }

  measureOf(plot) {
    return plot.parentElement.querySelector("select").value;
  }

  // The rows that the menus leave, in the order of the grid. The reference of a figure stays whatever its own keys are.
  shown(of = "table") {
    const fields = this.form?.elements ?? {};
    const reference = of === "figure" ? this.figure.reference : {};
    const words = this.search.elements.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = this.axes.map(({ name, at }, k) => [name, at, fields[`only-${k}`]?.value ?? ""]).filter(([, , value]) => value !== "");
    const status = fields.status?.value ?? "";
    return this.labels.map((_, row) => row).filter((row) => {
      const refers = of === "figure" && this.isReference(row);
      if (status && this.status[row] !== status) return false;
      if (!refers && !words.every((word) => this.texts[row].includes(word))) return false;
      return wanted.every(([name, at, value]) => String(at[row]) === value || (refers && (Object.hasOwn(reference, name) || at[row] < 0)));
    });
  }

  isReference(row) {
    const wanted = Object.entries(this.figure.reference);
    return wanted.length > 0 && wanted.every(([name, value]) => this.axis.get(name)?.values[this.axis.get(name).at[row]] === value);
  }

  draw() {
    this.before = this.choice();
    if (this.form) this.form.elements.lines.parentElement.hidden = this.before.kind === "with_without";
    const rows = this.shown("figure");
    for (const plot of this.plots) {
      const figure = new StudyFigure(this, this.before, this.measureOf(plot), rows).build();
      plot.parentElement.classList.toggle("wide", this.plots.length === 1 || figure.wide);
      render(plot, figure);
      if (figure.note) continue;
      plot.removeAllListeners?.("plotly_click");
      plot.on("plotly_click", ({ points: [point] }) => this.curves.add(point.customdata ?? []));
    }
    this.filter();
    this.curves.draw();
  }

  filter() {
    const shown = new Set(this.shown());
    this.lines.forEach((line, row) => (line.hidden = !shown.has(row)));
    this.search.querySelector("output").textContent = shown.size === this.lines.length ? `${shown.size} rows` : `${shown.size} of ${this.lines.length} rows`;
  }

  addTable() {
    const table = this.element.querySelector(".tall table");
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const each of heads) if (each.hasAttribute("aria-sort")) each.setAttribute("aria-sort", each === head ? order : "none");
      this.sort(table, column, order === "ascending" ? 1 : -1);
    }));
    this.lines.forEach((line, row) => {
      const box = line.querySelector("input");
      if (!box) return;
      box.addEventListener("change", () => (box.checked ? this.curves.add([row]) : this.curves.drop(row)));
      line.addEventListener("click", ({ target }) => {
        if (target !== box && !getSelection().toString()) box.click();
      });
    });
  }

  // What has no value comes last, whichever way the rows are sorted.
  sort(table, column, sign) {
    const keys = new Map(this.lines.map((line) => {
      const cell = line.cells[column];
      return [line, cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v)];
    }));
    const compare = (a, b) => {
      if ((a === "") !== (b === "")) return a === "" ? 1 : -1;
      return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
    };
    table.tBodies[0].append(...[...this.lines].sort((a, b) => compare(keys.get(a), keys.get(b))));
  }
}
