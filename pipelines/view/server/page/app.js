// The page: the list of runs, what is compared, the streams from the server, and the keys.
import { Chart, redraw, takePieces, view, zoom } from "./chart.js";
import { bar, forget, show } from "./details.js";
import { differing, field, groupOf, matcher, runs, shortKey, sorter, take } from "./rows.js";
import { ago, count, make } from "./text.js";

const $ = (id) => document.getElementById(id);
const state = {
  compared: [], // numbers of runs, in the order in which they were chosen
  opened: null, cursor: null, // numbers of runs
  search: "", group: "", sort: "started", results: null, // results: the column of the results table, {key, down}
  second: "rate", visible: [], keys: [],
};
const wanted = new URLSearchParams(location.hash.slice(1)); // what the address asks for, until it is there
let wantedRuns = new Set((wanted.get("runs") ?? "").split(",").filter(Boolean));

const loss = new Chart($("loss"), "train_bpc", "loss in bits per token", true);
const below = new Chart($("below"), "rate", "tokens a second", false);

// ---- streams

let curves = null, asked = "";
function follow() {
  const rows = new EventSource("runs");
  rows.addEventListener("hello", (e) => {
    const hello = JSON.parse(e.data);
    wantedRuns = new Set(wantedRuns.size ? wantedRuns : names(state.compared)); // numbers are those of the server before
    wanted.set("open", wanted.get("open") ?? runs.all.get(state.opened)?.run ?? "");
    Object.assign(runs, { data: hello.data, colors: hello.colors, columns: [], parameters: [], ready: false });
    runs.all.clear(); view.curves.clear(); forget();
    Object.assign(state, { compared: [], opened: null, cursor: null });
    asked = ""; $("data").textContent = hello.data; $("lost").hidden = true;
  });
  rows.addEventListener("runs", (e) => { take(JSON.parse(e.data)); choose(); render(); });
  rows.addEventListener("error", () => { $("lost").hidden = false; curves?.close(); }); // it tries again
}

// choose compares what the address asks for as soon as it is there, and the latest run where it asks for nothing.
function choose() {
  for (const row of runs.all.values()) {
    if (wantedRuns.delete(row.run) && !state.compared.includes(row.number)) state.compared.push(row.number);
    if (wanted.get("open") === row.run) { state.opened = row.number; wanted.delete("open"); }
  }
  state.compared = state.compared.filter((n) => runs.all.has(n));
  if (!runs.all.has(state.opened)) state.opened = null;
  if (!state.compared.length && !wantedRuns.size && !choose.done) {
    const latest = [...runs.all.values()].sort((a, b) => (b.state === "running") - (a.state === "running") || b.started - a.started)[0];
    if (latest) { state.compared = [latest.number]; state.opened ??= latest.number; }
  }
  if (runs.ready) { choose.done = true; wantedRuns.clear(); }
  state.cursor = runs.all.has(state.cursor) ? state.cursor : state.opened;
}

// followCurves asks for the curves of the compared runs, when others are compared or other things are drawn.
let asking = 0;
function followCurves() {
  const points = Math.max(200, Math.round($("loss").clientWidth / 100) * 100);
  const address = state.compared.length ? `curves?runs=${state.compared}&over=${view.over}&points=${points}` +
    `&y=train_bpc&y=${state.second}` : "";
  if (address === asked) return;
  asked = address;
  clearTimeout(asking);
  asking = setTimeout(() => {
    curves?.close();
    for (const n of [...view.curves.keys()]) if (!state.compared.includes(n)) view.curves.delete(n);
    if (!address) { redraw(); return; }
    curves = new EventSource(address);
    curves.addEventListener("curves", (e) => takePieces(JSON.parse(e.data)));
    curves.addEventListener("whole", () => { document.body.dataset.drawn = address; redraw(); });
  }, 60);
}

let detailed = "", reading = 0;
async function readDetails() {
  const row = runs.all.get(state.opened);
  if (!row) { $("run").replaceChildren(make("p", { class: "dim" }, "open a run to see its stages, checkpoints and texts")); forget(); return; }
  const key = [row.run, row.state, row.changed, row.checkpoints, row.step].join();
  if (key === detailed || Date.now() - reading < 800) return;
  detailed = key; reading = row.run === readDetails.run ? Date.now() : 0; readDetails.run = row.run;
  const answer = await fetch("run/" + row.run).catch(() => null);
  if (answer?.ok && state.opened === row.number) show($("run"), runs.all.get(row.number) ?? row, await answer.json());
}

// ---- what is shown

const dashes = [[], [6, 3], [2, 3]], borders = ["solid", "dashed", "dotted"];
function lookOf(number) {
  const row = runs.all.get(number), by = state.group, colors = runs.colors;
  let slot = state.compared.indexOf(number);
  if (slot < 0) return null;
  if (by) slot = [...new Set(state.compared.map((n) => groupOf(runs.all.get(n), by)))].sort().indexOf(groupOf(row, by));
  const color = colors[slot % colors.length];
  return { color: color === "#000000" ? getComputedStyle(document.documentElement).getPropertyValue("--text") : color,
    line: by ? 0 : Math.floor(slot / colors.length) % dashes.length };
}

const swatch = (look) => make("span", { class: "swatch", style: `border-color:${look.color};border-top-style:${borders[look.line]}` });

let due = 0;
function render() { due ||= requestAnimationFrame(() => { due = 0; renderNow(); }); }

function renderNow() {
  const all = [...runs.all.values()];
  state.keys = differing(all);
  const match = matcher(state.search);
  state.visible = all.filter(match).sort(sorter(state.sort));
  if (state.group) {
    const size = new Map();
    for (const r of state.visible) size.set(groupOf(r, state.group), (size.get(groupOf(r, state.group)) ?? 0) + 1);
    state.visible.sort((a, b) => groupOf(a, state.group).localeCompare(groupOf(b, state.group), undefined, { numeric: true }));
    state.size = size;
  }
  options($("group"), [["", "nothing"], ["state", "state"], ...state.keys.map((k) => [k, shortKey(k, state.keys)])], state.group);
  options($("sort"), [["started", "newest"], ["run", "name"], ["loss", "loss"], ["rate", "tokens a second"],
    ...runs.columns.filter((c) => c.better).map((c) => [c.key, c.name])], state.sort);
  $("count").textContent = `${state.visible.length} of ${runs.total} runs` + (runs.ready ? "" : ", reading …");
  $("all").textContent = `compare all ${state.visible.length}`;
  const running = all.filter((r) => r.state === "running");
  $("news").textContent = running.length ? `${running.map((r) => r.run).join(", ")} is running` : "nothing is running";
  document.title = running.length ? `${running[0].step} · ${running[0].run}` : "bitnet1 runs";
  view.chosen = state.compared.filter((n) => runs.all.has(n)).map((n) => ({ run: n, name: runs.all.get(n).run,
    bold: n === state.opened && state.compared.length > 1, ...lookOf(n), dash: dashes[lookOf(n).line] })).sort((a, b) => a.bold - b.bold);
  list(); legend(); results(); parameters(); followCurves(); readDetails(); redraw(); remember();
}

function options(select, all, value) {
  const now = JSON.stringify(all);
  if (select.dataset.all !== now) {
    select.dataset.all = now;
    select.replaceChildren(...all.map(([v, text]) => make("option", { value: v }, text)));
  }
  select.value = value;
}

const rowHeight = 62, headingHeight = 28;

// list shows those rows of the list that are in sight.
function list() {
  const root = $("list"), seen = root.scrollTop, end = seen + root.clientHeight, parts = [];
  let y = 0, before = null;
  state.places = new Map();
  state.visible.forEach((row, i) => {
    const group = state.group ? groupOf(row, state.group) : null;
    if (group !== null && group !== before) {
      if (y + headingHeight > seen - 200 && y < end + 200) parts.push(make("div", { class: "heading", role: "presentation",
        style: `top:${y}px;height:${headingHeight}px` }, `${shortKey(state.group, state.keys)}: ${group} (${state.size.get(group)})`));
      y += headingHeight;
      before = group;
    }
    state.places.set(row.number, y);
    if (y + rowHeight > seen - 200 && y < end + 200) parts.push(item(row, i, y));
    y += rowHeight;
  });
  if (!state.visible.length) parts.push(make("p", { class: "dim", style: "padding:14px" }, runs.total === 0 && runs.ready ?
    "There are no runs yet: task pipeline:v77 starts one." : runs.ready ? "No run fits the filter." : "Reading …"));
  parts.push(make("div", { style: `height:${y}px`, role: "presentation" }));
  root.replaceChildren(...parts);
  root.scrollTop = seen;
  if (state.cursor !== null) root.setAttribute("aria-activedescendant", "row-" + state.cursor);
}

function item(row, i, y) {
  const look = lookOf(row.number), differs = state.keys.filter((k) => !k.endsWith("seed") && k !== state.group).slice(0, 3)
    .map((k) => `${shortKey(k, state.keys)} ${row.given[k] ?? "–"}`);
  const quiet = row.state === "running" && Date.now() - row.changed > 300e3 ? "quiet since " : "";
  const says = [row.steps ? `${count(row.step)} / ${count(row.steps)}` : row.step ? `step ${count(row.step)}` : "",
    row.loss ? row.loss.toFixed(3) : "", ...differs].filter(Boolean).join(" · "), when = quiet + ago(row.changed);
  return make("div", { class: "row" + (row.number === state.cursor ? " cursor" : ""), role: "option", id: "row-" + row.number,
    "aria-selected": String(!!look), "aria-setsize": state.visible.length, "aria-posinset": i + 1,
    "aria-label": `${row.run}, ${row.state}, ${says}, ${when}`, style: `top:${y}px;height:${rowHeight}px`, title: row.problem,
    onclick: (e) => { state.cursor = row.number; if (e.target.classList.contains("tick")) toggle(row.number); else open(row.number); } },
  make("span", { class: "tick", style: look ? `background:${look.color};border-color:${look.color}` : "", title: "compare (space)" }),
  make("div", { class: "body" }, make("div", { class: "top" }, make("span", { class: "name" }, row.run),
    make("span", { class: "state " + row.state }, row.state)), bar(row.steps ? row.step / row.steps : 0),
  make("div", { class: "sub dim" }, make("span", {}, says), make("span", {}, when))));
}

function legend() {
  const few = view.chosen.slice().sort((a, b) => state.compared.indexOf(a.run) - state.compared.indexOf(b.run));
  $("legend").replaceChildren(...(few.length > 24 ? [make("span", { class: "dim" }, `${few.length} runs`)] : few.map((r) =>
    make("span", {}, swatch(r), r.name))),
  make("span", { class: "dim" }, few.length ? "○ validation text" : ""));
}

// results is the table of the compared runs: a row for each, the columns that stages have declared.
const tableRows = 200;
function results() {
  const rows = state.compared.map((n) => runs.all.get(n));
  const columns = runs.columns.map((c, i) => ({ ...c, i })).filter((c) => rows.some((r) => r.cells?.[c.i]));
  const best = new Map(columns.filter((c) => c.better).map((c) => {
    const values = rows.map((r) => r.cells?.[c.i]?.value).filter((v) => v !== undefined);
    return [c.i, c.better === "higher" ? Math.max(...values) : Math.min(...values)];
  }));
  const by = state.results;
  if (by) rows.sort((a, b) => (by.down ? -1 : 1) * ((field(a, by.key) ?? Infinity) - (field(b, by.key) ?? Infinity) || 0));
  const heading = (key, name, about) => make("th", { title: about, "aria-sort": by?.key === key ? by.down ? "descending" : "ascending" : "none" },
    make("button", { onclick: () => { state.results = { key, down: by?.key === key && !by.down }; render(); } },
      name + (by?.key === key ? by.down ? " ↓" : " ↑" : "")));
  redo($("table"), make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "run"), make("th", { class: "left" }, "state"),
    heading("step", "steps"), heading("loss", "loss", "of the last logged step (bits/token)"), make("th", {}, "checkpoint"),
    ...columns.map((c) => heading(c.key, c.name, c.about)))),
  make("tbody", {}, ...rows.slice(0, tableRows).map((r) => make("tr", {},
    make("td", {}, swatch(lookOf(r.number)), " " + r.run),
    make("td", { class: "left" }, make("span", { class: "state " + r.state }, r.state)), make("td", {}, String(r.step)),
    make("td", {}, r.loss ? r.loss.toFixed(3) : "–"), make("td", {}, r.best ?? "–"),
    ...columns.map((c) => make("td", {}, make("span", { class: rows.length > 1 && best.get(c.i) === r.cells?.[c.i]?.value ? "best" : "" },
      r.cells?.[c.i]?.text ?? "–")))))),
  rows.length > tableRows ? make("caption", { class: "dim" }, `the first ${tableRows} of ${rows.length}`) : ""));
}

// redo puts a new table in place of the old one unless they are equal: a person may be marking its text.
function redo(root, table) {
  if (root.firstChild?.outerHTML === table.outerHTML) return;
  const button = [...root.querySelectorAll("button")].indexOf(document.activeElement);
  root.replaceChildren(table);
  root.querySelectorAll("button")[button]?.focus();
}

// parameters is the table of what differs between the compared runs.
function parameters() {
  const rows = state.compared.map((n) => runs.all.get(n)), keys = rows.length > 1 ? differing(rows) : [];
  $("differ").textContent = rows.length < 2 ? "compare two runs to see in what they differ" : keys.length ?
    "in which the compared runs differ" + (rows.length > 12 ? ", the first 12" : "") : "the compared runs have the same";
  redo($("parameters"), keys.length ? make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "parameter"),
    ...rows.slice(0, 12).map((r) => make("th", {}, r.run)))), make("tbody", {}, ...keys.map((k) => make("tr", {}, make("td", {}, k),
    ...rows.slice(0, 12).map((r) => make("td", {}, r.given[k] ?? "–")))))) : make("p"));
}

// remember keeps in the address what is looked at, so that it can be kept and sent.
function remember() {
  if (!choose.done) return;
  const p = new URLSearchParams();
  if (state.compared.length <= 100) p.set("runs", names(state.compared).join(","));
  if (state.opened !== null) p.set("open", runs.all.get(state.opened).run);
  const rest = { over: view.over === "steps" ? "" : view.over, logx: view.logX, logy: view.logY, filter: state.search,
    group: state.group, sort: state.sort === "started" ? "" : state.sort, below: state.second === "rate" ? "" : state.second };
  for (const [k, v] of Object.entries(rest)) if (v) p.set(k, v);
  const hash = "#" + p.toString().replaceAll("%2C", ",");
  if (hash !== location.hash) history.replaceState(null, "", hash);
}

function recall() {
  view.over = wanted.get("over") ?? "steps"; view.logX = wanted.has("logx"); view.logY = wanted.has("logy");
  state.search = $("search").value = wanted.get("filter") ?? "";
  state.group = wanted.get("group") ?? ""; state.sort = wanted.get("sort") ?? "started";
  state.second = $("second").value = wanted.get("below") ?? "rate";
  below.key = state.second;
  below.label = $("second").selectedOptions[0]?.textContent ?? below.label;
  $("logx").checked = view.logX; $("logy").checked = view.logY;
  for (const r of document.querySelectorAll("[name=over]")) r.checked = r.value === view.over;
}

const names = (numbers) => numbers.flatMap((n) => runs.all.get(n)?.run ?? []);

// ---- what people do

function toggle(number) {
  state.compared = state.compared.includes(number) ? state.compared.filter((n) => n !== number) : [...state.compared, number];
  render();
}

// open shows a run, alone unless it is compared with others.
function open(number) {
  if (!state.compared.includes(number)) state.compared = state.compared.length > 1 ? [...state.compared, number] : [number];
  state.opened = number;
  detailed = "";
  if (document.body.dataset.view === "runs") look("run");
  render();
}

function look(name) {
  document.body.dataset.view = name;
  for (const b of document.querySelectorAll("nav button")) b.toggleAttribute("aria-current", false);
  document.querySelector(`nav [data-view=${name}]`).setAttribute("aria-current", "page");
  render();
}

function move(by) {
  const at = state.visible.findIndex((r) => r.number === state.cursor);
  const row = state.visible[Math.max(0, Math.min(state.visible.length - 1, at < 0 ? 0 : at + by))];
  if (!row) return;
  state.cursor = row.number;
  const y = state.places.get(row.number), root = $("list");
  root.scrollTop = Math.min(y, Math.max(root.scrollTop, y + rowHeight - root.clientHeight));
  list();
}

function over(value) { view.over = value; view.range = null; zoom(null); view.curves.clear(); recallRadio(); render(); }
function recallRadio() { for (const r of document.querySelectorAll("[name=over]")) r.checked = r.value === view.over; }

function theme(next) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  let now = localStorage.theme ?? (dark ? "dark" : "light");
  if (next) localStorage.theme = now = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = now;
  forget(); detailed = ""; render();
}

const axes = ["steps", "tokens", "seconds"];
const keys = {
  "/": () => { if (document.body.dataset.view !== "runs" && getComputedStyle($("runs")).display === "none") look("runs"); $("search").focus(); },
  "?": () => $("help").showModal(),
  x: () => over(axes[(axes.indexOf(view.over) + 1) % 3]),
  l: () => { view.logY = $("logy").checked = !view.logY; render(); },
  t: () => theme(true),
  Escape: () => { zoom(null); if (state.search) { state.search = $("search").value = ""; render(); } },
};

function listen() {
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || $("help").open) return;
    const typing = e.target.matches("input[type=search], select");
    if (typing && e.key !== "Escape") return;
    if (!keys[e.key]) return;
    e.preventDefault();
    keys[e.key]();
    if (typing) $("list").focus();
  });
  $("search").addEventListener("keydown", (e) => {
    if (e.key === "ArrowDown" || e.key === "Enter") { e.preventDefault(); $("list").focus(); move(0); }
  });
  $("search").addEventListener("input", () => { state.search = $("search").value; $("list").scrollTop = 0; render(); });
  $("list").addEventListener("scroll", () => requestAnimationFrame(list));
  $("list").addEventListener("keydown", (e) => {
    const page = Math.max(1, Math.floor($("list").clientHeight / rowHeight) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 };
    if (e.key in moves) move(moves[e.key]);
    else if (e.key === " ") { if (state.cursor !== null) toggle(state.cursor); }
    else if (e.key === "Enter") { if (state.cursor !== null) open(state.cursor); }
    else return;
    e.preventDefault();
  });
  $("group").addEventListener("change", (e) => { state.group = e.target.value; render(); });
  $("sort").addEventListener("change", (e) => { state.sort = e.target.value; render(); });
  $("all").addEventListener("click", () => { state.compared = state.visible.map((r) => r.number); render(); });
  $("none").addEventListener("click", () => { state.compared = []; choose.done = true; render(); });
  $("over").addEventListener("change", (e) => over(e.target.value));
  $("logx").addEventListener("change", (e) => { view.logX = e.target.checked; render(); });
  $("logy").addEventListener("change", (e) => { view.logY = e.target.checked; render(); });
  $("smooth").addEventListener("input", (e) => { view.smooth = +e.target.value; redraw(); });
  $("reset").addEventListener("click", () => zoom(null));
  $("second").addEventListener("change", (e) => {
    state.second = below.key = e.target.value;
    below.label = e.target.selectedOptions[0].textContent;
    render();
  });
  $("theme").addEventListener("click", () => theme(true));
  $("help-open").addEventListener("click", () => $("help").showModal());
  for (const b of document.querySelectorAll("nav button")) b.addEventListener("click", () => look(b.dataset.view));
  addEventListener("resize", render);
  setInterval(render, 15000); // times that have passed
}

listen();
recall();
theme(false);
look(wanted.get("open") ? "run" : "runs");
follow();
