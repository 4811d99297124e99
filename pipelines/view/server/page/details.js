// One run: its stages, its table, its attention heads as a film strip, and the texts that stages wrote about it.
import { bar, cell, make } from "./text.js";

const strip = { measure: "ipmr", at: -1 }; // at: the checkpoint that is shown large; -1: the last
const texts = { at: -1 };
const names = { ipmr: "IPMR", m4: "M4", hdr: "HDR" };
const artifacts = new Map(); // answers by their address, which never change

async function artifact(path, read) {
  if (!artifacts.has(path)) {
    if (artifacts.size > 500) artifacts.clear();
    artifacts.set(path, fetch(path).then(async (r) => { if (!r.ok) throw new Error(await r.text()); return read(r); }));
    artifacts.get(path).catch(() => artifacts.delete(path));
  }
  return artifacts.get(path);
}

// show shows a run. Parts that are as before stay as they are, and so does what the person looks at.
let shown = { run: null };
export function show(root, row, details) {
  if (shown.run !== row.run) { strip.at = texts.at = -1; root.replaceChildren(); }
  const parts = {
    head: [row.state, row.problem, details.problem, row.best], stages: [details.stages, row.step, row.steps, row.work],
    tables: details.tables, heads: [details.heads, strip.measure], texts: details.texts, given: details.parameters,
  };
  const builders = { head: () => head(row, details), stages: () => stages(row, details), tables: () => tables(details),
    heads: () => heads(details), texts: () => samples(details), given: () => given(details) };
  for (const [name, of] of Object.entries(parts)) {
    const now = JSON.stringify(of), id = "run-" + name;
    let part = root.querySelector("#" + id);
    if (part && shown.run === row.run && shown[name] === now) continue;
    if (!part) { part = make("div", { id }); root.append(part); }
    part.replaceChildren(...builders[name]());
    shown[name] = now;
  }
  shown.run = row.run;
}

export const forget = () => { shown = { run: null }; };

const why = {
  crashed: "The launcher of this run did not end in order: it was killed, or the machine stopped. What was saved is " +
    "kept; the same command goes on with it.",
  paused: "This run was stopped. The same command goes on with it.",
};

function head(row, details) {
  const all = [make("div", { class: "tools" }, make("h2", {}, row.run),
    make("span", { class: "state " + row.state }, row.state),
    make("span", { class: "dim" }, "started " + new Date(row.started).toLocaleString()))];
  const bad = row.state === "crashed" ? " bad" : "";
  if (why[row.state]) all.push(make("p", { class: "notice" + bad }, why[row.state]));
  for (const s of details.stages) for (const cause of s.causes ?? [])
    all.push(make("p", { class: "notice bad" }, `${s.name} failed: ${cause}`));
  const problem = details.problem || row.problem;
  if (problem) all.push(make("p", { class: "notice" }, problem));
  return all;
}

function stages(row, details) {
  return [make("div", { class: "stages" }, ...details.stages.map((s) => {
    let share = s.total ? s.done / s.total : 0, said = s.total ? `${s.done} of ${s.total}` : "";
    if (s.name === "train" && row.steps && share < 1) {
      share = row.step / row.steps;
      said = `step ${row.step} of ${row.steps}`;
    }
    const work = (row.work ?? []).find((w) => w.stage === s.name);
    if (work && s.state === "working") {
      if (s.total === 1) share = work.share;
      said = work.text;
    }
    return make("div", {}, make("div", { class: "top" }, make("b", {}, s.name),
      make("span", { class: "state " + s.state }, s.state)), bar(share), make("div", { class: "dim" }, said || "–"));
  }))];
}

function tables(details) {
  return details.tables.filter((t) => t.rows.length).map((t) => make("div", { class: "scroll", tabindex: 0,
    "aria-label": "Results of each " + t.row.name }, make("table", {},
    make("thead", {}, make("tr", {}, make("th", { title: t.row.about }, t.row.name), make("th"),
      ...t.columns.map((c) => make("th", { title: c.about }, c.name)))),
    make("tbody", {}, ...t.rows.map((r) => make("tr", {}, cell(r.name),
      make("td", { class: "left" }, make("span", { class: "mark" }, (r.marks ?? []).join(" ")), " " + (r.with ?? "")),
      ...t.columns.map((c) => cell(r.cells[c.key]?.text ?? "–"))))))));
}

// shade is the colour of a share of the scale, from the page's background to strong blue.
function shade(share) {
  const dark = document.documentElement.dataset.theme === "dark";
  const stops = dark ? [[23, 32, 44], [32, 74, 120], [86, 160, 220], [235, 246, 255]]
    : [[243, 247, 251], [158, 202, 225], [49, 130, 189], [8, 48, 107]];
  const at = Math.max(0, Math.min(0.9999, share)) * (stops.length - 1), i = Math.floor(at);
  return stops[i].map((v, k) => Math.round(v + (stops[i + 1][k] - v) * (at - i)));
}

// paint draws a heat map: a row for each layer, a column for each head.
function paint(canvas, map, size, highest) {
  const ratio = devicePixelRatio || 1;
  canvas.width = map.heads * size * ratio; canvas.height = map.layers * size * ratio;
  canvas.style.width = map.heads * size + "px"; canvas.style.height = map.layers * size + "px";
  const g = canvas.getContext("2d"), gap = size > 8 ? 1 : 0;
  g.scale(ratio, ratio);
  map.measures[strip.measure].forEach((v, i) => {
    g.fillStyle = `rgb(${shade(v / highest)})`;
    g.fillRect(i % map.heads * size, Math.floor(i / map.heads) * size, size - gap, size - gap);
  });
}

const percent = (v) => (100 * v).toFixed(1) + " %";

function heads(details) {
  if (!details.heads.length) return [];
  const large = make("div", { class: "large" });
  const film = make("div", { class: "strip", role: "listbox", tabindex: 0, "aria-orientation": "horizontal",
    "aria-label": "Attention heads by checkpoint; arrow keys go from one to the next" });
  const measure = (e) => { strip.measure = e.target.value; draw(); };
  const option = ([v, n]) => make("option", { value: v, selected: v === strip.measure }, n);
  const choice = make("select", { "aria-label": "measure", onchange: measure }, ...Object.entries(names).map(option));
  const figures = details.heads.map((h, i) => make("figure", { role: "option", onclick: () => pick(i) }, make("canvas"),
    make("figcaption", { class: "dim" }, String(h.step), h.with ? make("br") : "", h.with ?? "")));
  film.append(...figures);
  film.addEventListener("keydown", (e) => step(e, current(), figures.length, pick));
  const current = () => strip.at < 0 || strip.at >= figures.length ? figures.length - 1 : strip.at;
  const pick = (i) => {
    strip.at = i === figures.length - 1 ? -1 : i;
    draw();
    figures[i].scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  async function draw() {
    const map = (h) => artifact("heads/" + h.digest, (r) => r.json()).catch((e) => e);
    const maps = await Promise.all(details.heads.map(map));
    const good = maps.filter((m) => m.measures);
    if (!good.length) { large.replaceChildren(make("p", { class: "notice" }, String(maps[0]))); return; }
    const highest = Math.max(0.01, ...good.flatMap((m) => m.measures[strip.measure]));
    const size = Math.max(3, Math.min(14, Math.floor(120 / Math.max(good[0].heads, good[0].layers))));
    maps.forEach((m, i) => {
      figures[i].setAttribute("aria-selected", String(i === current()));
      if (m.measures) paint(figures[i].firstChild, m, size, highest);
    });
    enlarge(large, details.heads[current()], maps[current()], highest);
  }
  draw();
  requestAnimationFrame(() => { film.scrollLeft = film.scrollWidth; });
  return [make("div", { class: "tools" }, make("h2", {}, "Attention heads"), choice,
    make("span", { class: "dim" }, "rows are layers, columns are heads")), film, large];
}

function enlarge(root, of, map, highest) {
  if (!map.measures) { root.replaceChildren(make("p", { class: "notice" }, String(map))); return; }
  const values = map.measures[strip.measure], best = values.indexOf(Math.max(...values));
  const measure = names[strip.measure], random = percent(map.random[strip.measure]);
  const says = (i) =>
    `L${Math.floor(i / map.heads)}.H${i % map.heads}: ${measure} ${percent(values[i])}, random key ${random}`;
  const size = Math.max(6, Math.min(34, Math.floor(Math.min(innerWidth - 60, 420) / Math.max(map.heads, map.layers))));
  const said = make("p", { role: "status" }, "highest " + says(best));
  const label = `${measure} of ${map.layers} layers of ${map.heads} heads at step ${of.step}; highest ${says(best)}`;
  const canvas = make("canvas", { role: "img", "aria-label": label });
  canvas.addEventListener("pointermove", (e) => {
    const box = canvas.getBoundingClientRect();
    const x = Math.floor((e.clientX - box.left) / size), y = Math.floor((e.clientY - box.top) / size);
    if (x >= 0 && x < map.heads && y >= 0 && y < map.layers) said.textContent = says(y * map.heads + x);
  });
  canvas.addEventListener("pointerleave", () => { said.textContent = "highest " + says(best); });
  paint(canvas, map, size, highest);
  const ramp = [0, .25, .5, .75, 1].map((s) => `rgb(${shade(s)}) ${100 * s}%`).join(",");
  root.replaceChildren(canvas, make("div", {}, make("b", {}, "step " + of.step), said,
    make("span", { class: "ramp", style: `background:linear-gradient(90deg,${ramp})` }),
    make("div", { class: "dim", style: "display:flex;justify-content:space-between;width:180px" },
      make("span", {}, "0"), make("span", {}, percent(highest)))));
}

// step goes to another of n things with the arrow keys.
function step(e, at, n, pick) {
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: n - 1 }[e.key];
  if (to === undefined) return;
  e.preventDefault();
  pick(Math.max(0, Math.min(n - 1, to)));
}

function samples(details) {
  const n = details.texts.length;
  if (!n) return [];
  const current = () => texts.at < 0 || texts.at >= n ? n - 1 : texts.at;
  const body = make("div"), said = make("span", { class: "dim", role: "status" });
  const pick = (i) => { texts.at = i === n - 1 ? -1 : i; draw(); };
  async function draw() {
    const of = details.texts[current()];
    slider.value = current();
    said.textContent = `step ${of.step}, ${of.name}${of.with ? " (" + of.with + ")" : ""}`;
    const text = await artifact("text/" + of.digest, (r) => r.text()).catch(String);
    if (of === details.texts[current()]) body.replaceChildren(...written(text, of.type));
  }
  const slider = make("input", { type: "range", min: 0, max: n - 1, "aria-label": "checkpoint of the texts",
    oninput: () => pick(+slider.value) });
  draw();
  return [make("div", { class: "tools" }, make("h2", {}, "Texts"), n > 1 ? slider : "", said), body];
}

// written shows a text: the prompts and continuations of the stage generate, or whatever another stage wrote.
function written(text, type) {
  try {
    const all = JSON.parse(text).texts;
    if (type.includes("json") && Array.isArray(all)) return all.map((t) => make("p", { class: "text" },
      make("span", { class: "prompt" }, t.prompt ?? ""), String(t.text ?? "")));
  } catch { /* it is shown as it is */ }
  return [make("pre", { class: "text" }, text)];
}

function given(details) {
  const keys = Object.keys(details.parameters).sort();
  return [make("details", {}, make("summary", {}, `${keys.length} parameters`), make("table", {}, make("tbody", {},
    ...keys.map((k) => make("tr", {}, cell(k), cell(details.parameters[k], { class: "left" }))))))];
}
