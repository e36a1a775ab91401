// The page: which runs are shown, theme, figures, drawing when a section comes near, printing, reloading.

function redraw() {
  for (const section of sections.values()) draw(section);
}

function addRuns() {
  const field = document.getElementById("runs");
  for (const [text, all] of RUNS.length > 2 ? [["all", true], ["none", false]] : []) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    button.addEventListener("click", () => show(() => all));
    field.append(button);
  }
  for (const run of RUNS) {
    run.shown = !saved.hidden?.includes(run.name);
    const label = document.createElement("label");
    label.innerHTML = `<input type="checkbox"><span class="swatch">${swatch(run)}</span><span></span>`;
    label.lastChild.textContent = label.lastChild.title = run.name;
    const input = label.firstChild;
    input.checked = run.shown;
    input.addEventListener("change", () => show((each) => (each === run ? input.checked : each.shown)));
    run.input = input;
    field.append(label);
  }
  document.querySelectorAll(".swatch[data-run]").forEach((element) => (element.innerHTML = swatch(RUNS[Number(element.dataset.run)])));
}

function show(whether) {
  for (const run of RUNS) run.input.checked = run.shown = whether(run);
  redraw();
  save();
}

function addPictures() {
  const element = document.getElementById("figures");
  const names = union(RUNS.map((run) => run.figures)).sort((a, b) => a.localeCompare(b));
  if (!names.length) return nothing(element, "No run has figures.");
  const form = element.querySelector(".controls");
  form.innerHTML = '<label>Figure<select id="figures-name"></select></label>';
  const select = form.querySelector("select");
  fill(select, names.map((name) => [name, name.replaceAll("_", " ")]));
  const count = (name) => RUNS.filter((run) => run.figures.includes(name)).length;
  select.value = names.reduce((best, name) => (count(name) >= count(best) ? name : best));
  const display = () => {
    const pictures = RUNS.filter((run) => run.figures.includes(select.value)).map((run) => {
      const content = JSON.parse(document.getElementById(`figures-${run.index}`).textContent)[select.value];
      const figure = document.createElement("figure");
      figure.className = "card wide";
      figure.innerHTML = "<figcaption><b></b></figcaption><img>";
      figure.querySelector("b").textContent = run.name;
      Object.assign(figure.querySelector("img"), { alt: `${select.value} of ${run.name}`, src: `data:image/png;base64,${content}` });
      return figure;
    });
    element.querySelector(".grid").replaceChildren(...pictures);
  };
  select.addEventListener("change", display);
  return display;
}

function addTheme() {
  const select = document.getElementById("theme");
  const apply = () => {
    if (select.value) document.documentElement.dataset.theme = select.value;
    else delete document.documentElement.dataset.theme;
    redraw();
  };
  try {
    select.value = localStorage.getItem("report theme") ?? "";
  } catch {
    // As above: without storage the system's theme is shown.
  }
  select.addEventListener("change", () => {
    apply();
    try {
      localStorage.setItem("report theme", select.value);
    } catch {
      // As above.
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  apply();
}

function addSections() {
  const near = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      near.unobserve(entry.target);
      waiting.get(entry.target.id)?.();
    }),
    { rootMargin: "600px" },
  );
  const waiting = new Map();
  const nav = document.querySelector("nav");
  for (const element of document.querySelectorAll("main > section")) {
    const { id } = element;
    nav.append(Object.assign(document.createElement("a"), { href: `#${id}`, textContent: element.querySelector("h2").textContent }));
    const wait = (make) => {
      element.classList.add("waiting");
      waiting.set(id, () => {
        waiting.delete(id);
        element.classList.remove("waiting");
        make();
      });
      near.observe(element);
    };
    if (id === "figures") {
      const display = addPictures();
      if (display) wait(display);
    } else if (FACTORIES[id] && !RUNS.some((run) => run.analyses.includes(id))) {
      nothing(element, `None of these runs has analyses/${id}.csv that can be read.`);
    } else if (id in FACTORIES || id === "training") wait(() => makeSection(id));
  }
  return waiting;
}

function addPrinting(waiting) {
  const print = (now) => {
    if (printing === now) return;
    if (now) [...waiting.values()].forEach((make) => make());
    printing = now;
    redraw();
  };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  matchMedia("print").addEventListener("change", (event) => print(event.matches));
  let width = innerWidth;
  let timer = null;
  addEventListener("resize", () => {
    clearTimeout(timer);
    if (innerWidth !== width) timer = setTimeout(() => ((width = innerWidth), redraw()), 120);
  });
}

function addReloading() {
  addEventListener("pagehide", save);
  if (!PAGE.reload) return;
  const shown = document.getElementById("reloading");
  const wanted = shown.querySelector("input");
  shown.hidden = false;
  wanted.checked = saved.reload ?? true;
  wanted.addEventListener("change", save);
  let used = 0;
  for (const kind of ["pointerdown", "keydown", "wheel", "touchmove"]) addEventListener(kind, () => (used = Date.now()), { passive: true });
  setInterval(() => {
    // Not while someone is reading closely: five quiet seconds, and no open page behind another.
    if (wanted.checked && !document.hidden && Date.now() - used > 5000) location.reload();
  }, 1000 * PAGE.reload);
}

addTheme();
addRuns();
makeSection("summary");
const waiting = addSections();
addPrinting(waiting);
addReloading();
if (saved.scroll) scrollTo(0, saved.scroll);
