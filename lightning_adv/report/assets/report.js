// The page: which runs are shown, theme, pictures, printing, reloading. Everything is drawn when the page is opened.

const saved = restore();
const sections = PAGE.sections.map((content) => new Section(content));
const studies = (PAGE.studies ?? []).map((content) => new Study(content));

function drawWhole() {
  document.querySelectorAll('[data-plot="result"]').forEach((plot, k) => renderWhole(plot, PAGE.results[k], "No run that is shown has results yet."));
  document.querySelectorAll('[data-plot="metric"]').forEach((plot) => {
    const select = plot.parentElement.querySelector("select");
    renderWhole(plot, PAGE.metrics[select.value], NOTHING_SHOWN);
  });
}

function drawAll() {
  drawWhole();
  for (const part of [...studies, ...sections]) part.draw();
}

// What a reload keeps: choices by the id of their field, and of a slider its place, or that it is at the end.
function save() {
  const state = { hidden: RUNS.filter((run) => !run.shown).map((run) => run.name), scroll: scrollY, reload: document.querySelector("#reloading input").checked, looks: {}, fields: {}, compared: {} };
  for (const study of studies) state.compared[study.id] = study.curves.compared();
  for (const field of document.querySelectorAll("main [id]:is(select, [type=checkbox], [type=search])")) state.fields[field.id] = field.type === "checkbox" ? field.checked : field.value;
  for (const section of sections) if (!section.last) state.looks[section.id] = section.choice().x;
  try {
    sessionStorage.setItem(`report ${location.pathname}`, JSON.stringify(state));
  } catch {
    // A browser may forbid storage to local files; then a reload begins anew.
  }
}

function restore() {
  try {
    return JSON.parse(sessionStorage.getItem(`report ${location.pathname}`)) ?? {};
  } catch {
    return {};
  }
}

// What was chosen before a reload is chosen again, where it is still there.
function adopt() {
  for (const [id, value] of Object.entries(saved.fields ?? {})) {
    const field = document.getElementById(id);
    if (field?.type === "checkbox") field.checked = value;
    else if (field?.type === "search") field.value = value;
    else if ([...(field?.options ?? [])].some((option) => option.value === value)) field.value = value;
  }
  for (const section of sections) section.moveTo(saved.looks?.[section.id] ?? Infinity);
  for (const study of studies) study.curves.compare(saved.compared?.[study.id] ?? []);
}

function addRuns() {
  const inputs = [...document.querySelectorAll("#runs input")];
  const show = () => {
    RUNS.forEach((run, k) => (run.shown = inputs[k].checked));
    drawAll();
    save();
  };
  RUNS.forEach((run, k) => (run.shown = inputs[k].checked = !saved.hidden?.includes(run.name)));
  document.getElementById("runs").addEventListener("change", show);
  document.querySelectorAll("#runs button").forEach((button) => button.addEventListener("click", () => {
    for (const input of inputs) input.checked = button.value === "all";
    show();
  }));
}

function addPictures() {
  const element = document.getElementById("figures");
  const select = document.getElementById("figures-name");
  if (!select.options.length) {
    element.querySelector("form").outerHTML = '<p class="nothing">No run has figures.</p>';
    return;
  }
  const display = () => {
    const figures = RUNS.flatMap((run) => {
      const pictures = JSON.parse(document.getElementById(`figures-${run.index}`)?.textContent ?? "{}");
      if (!Object.hasOwn(pictures, select.value)) return [];
      const figure = document.createElement("figure");
      figure.className = "card wide";
      figure.innerHTML = "<figcaption><b></b></figcaption><img>";
      figure.querySelector("b").textContent = run.name;
      Object.assign(figure.querySelector("img"), { alt: `${select.value} of ${run.name}`, src: `data:image/png;base64,${pictures[select.value]}` });
      return [figure];
    });
    element.querySelector(".grid").replaceChildren(...figures);
  };
  select.addEventListener("change", display);
  display();
}

function addTheme() {
  const select = document.getElementById("theme");
  const apply = () => {
    if (select.value) document.documentElement.dataset.theme = select.value;
    else delete document.documentElement.dataset.theme;
  };
  try {
    select.value = localStorage.getItem("report theme") ?? "";
  } catch {
    // Without storage the system's theme is shown.
  }
  apply();
  select.addEventListener("change", () => {
    apply();
    drawAll();
    try {
      localStorage.setItem("report theme", select.value);
    } catch {
      // As above.
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
}

function addNavigation() {
  for (const element of document.querySelectorAll("main > section")) {
    const link = Object.assign(document.createElement("a"), { textContent: element.querySelector("h2").textContent });
    link.href = `#${encodeURIComponent(element.id)}`;
    document.querySelector("nav").append(link);
  }
}

// On paper plots have the size of the page, and in a window that of the window.
function addPrinting() {
  const print = (now) => {
    if (printing === now) return;
    printing = now;
    drawAll();
  };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  matchMedia("print").addEventListener("change", (event) => print(event.matches));
  let width = innerWidth;
  let timer = null;
  addEventListener("resize", () => {
    clearTimeout(timer);
    if (innerWidth !== width) timer = setTimeout(() => ((width = innerWidth), drawAll()), 120);
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

adopt();
addTheme();
addRuns();
addNavigation();
if (RUNS.length) {
  addPictures();
  document.getElementById("training").addEventListener("change", () => (drawWhole(), save()));
}
drawAll();
addPrinting();
addReloading();
if (saved.scroll) scrollTo(0, saved.scroll);
