// Sections: their controls, their slider, and what a reload keeps of them.

const FACTORIES = { bn_drift: driftSection, bn_gap: gapSection, smoothness: smoothnessSection, local_response: responseSection };
const sections = new Map();
const saved = restore();

function save() {
  const state = { hidden: RUNS.filter((run) => !run.shown).map((run) => run.name), scroll: scrollY, reload: document.querySelector("#reloading input").checked, sections: {} };
  for (const [id, section] of sections) state.sections[id] = section.state;
  try {
    sessionStorage.setItem(`report ${location.pathname}`, JSON.stringify({ ...state, sections: { ...saved.sections, ...state.sections } }));
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

// A section is made when it comes near the screen, since its tables are read then.
function makeSection(id) {
  if (sections.has(id)) return sections.get(id);
  const section = id === "summary" ? SUMMARY : id === "training" ? trainingSection() : FACTORIES[id]();
  const element = document.getElementById(id);
  section.element = element;
  sections.set(id, section);
  if (section.slider) {
    const at = union(RUNS.filter((run) => run.analyses.includes(id)).map((run) => tableOf(run, id).x)).sort((a, b) => a - b);
    section.positions = at;
    section.state.x = at.at(-1) ?? 0;
  }
  // Of a table that has just begun there may be a layer without a statistic, or nothing but the whole network.
  section.cards = section.cards.filter((card) => (card.needs ?? []).every((key) => section.state[key] !== undefined));
  adopt(section, saved.sections?.[id]);
  section.drawn = section.cards.map((card) => makeCard(element.querySelector(".grid"), card));
  addControls(section);
  if (!section.cards.length) nothing(element, section.nothing);
  draw(section);
  return section;
}

// What was chosen before a reload is chosen again, where it is still there.
function adopt(section, before) {
  for (const [key, value] of Object.entries(before ?? {})) {
    const control = section.controls.find((each) => each.key === key);
    if (key === "x" && before.last !== true && section.positions?.includes(value)) section.state.x = value;
    else if (control?.check || control?.options().some(([option]) => option === value)) section.state[key] = value;
  }
}

function addControls(section) {
  const form = section.element.querySelector(".controls");
  form?.addEventListener("submit", (event) => event.preventDefault());
  for (const control of section.controls) {
    const options = control.check ? [] : control.options();
    if (!control.check && options.length < 2) continue;
    const label = document.createElement("label");
    const input = document.createElement(control.check ? "input" : "select");
    if (control.check) {
      input.type = "checkbox";
      input.checked = section.state[control.key];
      label.className = "check";
      label.append(input, control.label);
    } else {
      fill(input, options);
      input.value = section.state[control.key];
      if (control.card === undefined) label.append(control.label);
      else input.setAttribute("aria-label", control.label);
      label.append(input);
    }
    input.id = `${section.id}-${control.key}`;
    input.addEventListener("change", () => {
      section.state[control.key] = control.check ? input.checked : input.value;
      choose(section, control.adjust?.(section.state) ?? {});
      draw(section);
      save();
    });
    if (control.card === undefined) form.append(label);
    else section.drawn[control.card].title.replaceChildren(label);
  }
  if (section.slider && section.positions.length > 1) form.append(makeSlider(section));
  if (form) {
    section.printed = form.parentElement.insertBefore(document.createElement("p"), form.nextSibling);
    section.printed.className = "print-settings";
  }
}

function choose(section, values) {
  for (const [key, value] of Object.entries(values)) {
    section.state[key] = value;
    const select = document.getElementById(`${section.id}-${key}`);
    if (select) select.value = value;
  }
}

function fill(select, options) {
  const groups = new Map();
  for (const [value, label, group] of options) {
    const option = new Option(label, value);
    if (!group) select.append(option);
    else {
      if (!groups.has(group)) {
        groups.set(group, Object.assign(document.createElement("optgroup"), { label: group }));
        select.append(groups.get(group));
      }
      groups.get(group).append(option);
    }
  }
}

function makeSlider(section) {
  const label = document.createElement("div");
  label.className = "slider";
  const id = `${section.id}-epoch`;
  label.innerHTML = `<button type="button"></button><label for="${id}">Epoch <output for="${id}"></output></label><input type="range" min="0" step="1">`;
  const [input, output, button] = ["input", "output", "button"].map((name) => label.querySelector(name));
  input.id = id;
  input.max = section.positions.length - 1;
  input.value = section.positions.indexOf(section.state.x);
  let timer = null;
  const show = () => {
    output.textContent = epochText(section.state.x);
    input.setAttribute("aria-valuetext", `epoch ${output.textContent}`);
    button.textContent = timer ? "❚❚" : "▶";
    button.setAttribute("aria-label", timer ? "Pause" : "Play");
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
  };
  const go = (index) => {
    section.state.x = section.positions[index];
    section.state.last = index === section.positions.length - 1; // a page that is rebuilt follows the run
    input.value = index;
    show();
    requestAnimationFrame(() => draw(section, true));
  };
  input.addEventListener("input", () => {
    stop();
    go(Number(input.value));
  });
  input.addEventListener("change", save);
  button.addEventListener("click", () => {
    if (timer) stop();
    else {
      if (Number(input.value) === section.positions.length - 1) input.value = -1;
      timer = setInterval(() => {
        const next = Number(input.value) + 1;
        if (next < section.positions.length) go(next);
        else stop();
        show();
      }, Math.max(80, Math.min(600, 12000 / section.positions.length)));
    }
    show();
  });
  section.go = (x) => go(section.positions.indexOf(x));
  section.state.last = section.state.x === section.positions.at(-1);
  show();
  return label;
}

function draw(section, onlyMoved = false) {
  section.cards.forEach((card, k) => {
    const made = section.drawn[k];
    if (onlyMoved && card.moves === "line" && !made.plot.classList.contains("empty")) {
      Plotly.relayout(made.plot, { shapes: epochLine(card.line ? card.line(section.state) : section.state.x) });
    } else if (!onlyMoved || card.moves) {
      const own = section.controls.some((control) => control.card === k);
      render(made, card.draw(section.state, made), card.title(section.state), card.caption?.(section.state), own);
      if (card.pick && !made.picks && made.plot.on) made.picks = pickFrom(section, made.plot);
    }
  });
  if (section.printed) section.printed.textContent = settingsOf(section);
}

// A click on the heat map chooses its layer and epoch.
function pickFrom(section, plot) {
  plot.on("plotly_click", ({ points: [point] }) => {
    const table = tableOf(RUNS[Number(section.state.run)], section.id);
    choose(section, { layer: table.names.find((name) => plain(name) === point.text) });
    if (section.positions.includes(point.x)) section.go(point.x);
    draw(section);
  });
  return true;
}

function settingsOf(section) {
  const said = section.controls.filter((control) => !control.check && control.options().length > 1).map((control) => {
    const [, label] = control.options().find(([value]) => value === section.state[control.key]) ?? [];
    return `${control.label}: ${label}`;
  });
  return [...said, ...(section.slider ? [`Epoch: ${epochText(section.state.x)}`] : [])].join(" · ");
}

function nothing(element, text) {
  for (const part of element.querySelectorAll(".lead, .controls")) part.remove();
  const paragraph = document.createElement("p");
  paragraph.className = "nothing";
  paragraph.textContent = text;
  element.querySelector(".grid").replaceWith(paragraph);
}
