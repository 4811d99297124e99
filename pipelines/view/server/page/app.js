// The page: the streams from the server, what people do, and what follows from it.
import { Chart, redraw, takePieces, view, zoom } from "./chart.js";
import { forget, show } from "./details.js";
import { drawList, listenToList, page, reveal } from "./list.js";
import { differing, groupOf, matcher, runs, shortKey, sorter, take } from "./rows.js";
import { look, names, state } from "./state.js";
import { drawParameters, drawResults } from "./tables.js";
import { make, swatch } from "./text.js";

const $ = (id) => document.getElementById(id);
const wanted = new URLSearchParams(location.hash.slice(1)); // what the address asks for, until it is there
let wantedRuns = new Set((wanted.get("runs") ?? "").split(",").filter(Boolean));
let chosen = wantedRuns.size > 0; // the runs to compare, by the address or by the person
let read = false; // all that the address asks for, as far as it is there

new Chart($("loss"), "train_bpc", "loss in bits per token", true);
const below = new Chart($("below"), "rate", "tokens a second", false);

// ---- the list of runs

function follow() {
  const rows = new EventSource("runs"); // it tries again when it ends
  rows.addEventListener("hello", (e) => {
    const hello = JSON.parse(e.data);
    if (!wantedRuns.size) wantedRuns = new Set(names(state.compared)); // numbers are those of the server before
    if (!wanted.get("open")) wanted.set("open", runs.all.get(state.opened)?.run ?? "");
    Object.assign(runs, { data: hello.data, colors: hello.colors, columns: [], parameters: [], ready: false });
    Object.assign(state, { compared: [], opened: null, cursor: null });
    runs.all.clear();
    view.curves.clear();
    forget();
    asked = "";
    $("data").textContent = hello.data;
    $("lost").hidden = true;
  });
  rows.addEventListener("runs", (e) => { take(JSON.parse(e.data)); choose(); render(); });
  rows.addEventListener("error", () => { $("lost").hidden = false; curves?.close(); });
}

// choose compares what the address asks for as soon as it is there, and the latest run where it asks for nothing.
function choose() {
  for (const row of runs.all.values()) {
    if (wantedRuns.delete(row.run) && !state.compared.includes(row.number)) state.compared.push(row.number);
    if (wanted.get("open") === row.run) { state.opened = row.number; wanted.delete("open"); }
  }
  state.compared = state.compared.filter((n) => runs.all.has(n));
  if (!runs.all.has(state.opened)) state.opened = null;
  if (!chosen) compareLatest(); // anew with each message: the latest run may come last
  if (runs.ready && runs.all.size) { chosen = read = true; wantedRuns.clear(); }
  if (!runs.all.has(state.cursor)) state.cursor = state.opened;
}

function compareLatest() {
  const rank = (row) => (row.state === "running" ? 1e15 : 0) + row.started;
  const latest = [...runs.all.values()].sort((a, b) => rank(b) - rank(a))[0]?.number;
  if (latest === undefined || state.compared.includes(latest)) return;
  if (state.opened === null || state.compared.includes(state.opened)) state.opened = state.cursor = latest;
  state.compared = [latest];
}

// ---- the curves of the compared runs

let curves = null, asked = "", asking = 0;
function followCurves() {
  const points = Math.max(200, Math.round($("loss").clientWidth / 100) * 100);
  const address = state.compared.length === 0 ? "" :
    `curves?runs=${state.compared}&over=${view.over}&points=${points}&y=train_bpc&y=${state.second}`;
  if (address === asked) return;
  asked = address;
  clearTimeout(asking);
  asking = setTimeout(() => { // there may be more clicks
    curves?.close();
    for (const n of [...view.curves.keys()]) if (!state.compared.includes(n)) view.curves.delete(n);
    redraw();
    if (!address) return;
    curves = new EventSource(address);
    curves.addEventListener("curves", (e) => takePieces(JSON.parse(e.data)));
    curves.addEventListener("whole", () => { document.body.dataset.drawn = address; redraw(); });
  }, 60);
}

// ---- the run that is open

const details = { of: "", at: 0, answer: null }; // of: what was asked for last; at: when
const often = 800; // milliseconds
async function readDetails() {
  const row = runs.all.get(state.opened);
  if (!row) {
    $("run").replaceChildren(make("p", { class: "dim" }, "open a run to see its stages, checkpoints and texts"));
    forget();
    return;
  }
  const of = [row.run, row.state, row.changed, row.checkpoints, row.step].join();
  if (of === details.of) { showDetails(row); return; }
  if (details.answer?.run === row.run && Date.now() - details.at < often) { setTimeout(render, often); return; }
  details.of = of;
  details.at = Date.now();
  const answer = await fetch("run/" + row.run).catch(() => null);
  if (!answer?.ok) details.of = ""; // again with the next message
  if (!answer?.ok || state.opened !== row.number) return;
  details.answer = await answer.json();
  showDetails(row);
}

function showDetails(row) {
  if (details.answer?.run === row.run) show($("run"), runs.all.get(row.number) ?? row, details.answer);
}

// ---- what is shown

let due = 0;
function render() { due ||= requestAnimationFrame(() => { due = 0; renderNow(); }); }

function renderNow() {
  const all = [...runs.all.values()];
  state.keys = differing(all);
  state.visible = all.filter(matcher(state.search)).sort(sorter(state.sort));
  if (state.group) {
    const group = (row) => groupOf(row, state.group);
    state.visible.sort((a, b) => group(a).localeCompare(group(b), undefined, { numeric: true }));
  }
  const keys = state.keys.map((k) => [k, shortKey(k, state.keys)]);
  options($("group"), [["", "nothing"], ["state", "state"], ...keys], state.group);
  options($("sort"), [["started", "newest"], ["run", "name"], ["loss", "loss"], ["rate", "tokens a second"],
    ...runs.columns.filter((c) => c.better).map((c) => [c.key, c.name])], state.sort);
  $("count").textContent = `${state.visible.length} of ${runs.total} runs` + (runs.ready ? "" : ", reading …");
  $("all").textContent = `compare all ${state.visible.length}`;
  const running = all.filter((r) => r.state === "running");
  $("news").textContent = running.length ? `${running.map((r) => r.run).join(", ")} is running` : "nothing is running";
  document.title = running.length ? `${running[0].step} · ${running[0].run}` : "bitnet1 runs";
  view.chosen = state.compared.map((n) => ({ run: n, name: runs.all.get(n).run, ...look(n),
    bold: n === state.opened && state.compared.length > 1 })).sort((a, b) => a.bold - b.bold); // bold ones on top
  drawList();
  legend();
  drawResults($("table"), render);
  drawParameters($("parameters"), $("differ"));
  followCurves();
  readDetails();
  redraw();
  remember();
}

function options(select, all, value) {
  const now = JSON.stringify(all);
  if (select.dataset.all !== now) {
    select.dataset.all = now;
    select.replaceChildren(...all.map(([v, text]) => make("option", { value: v }, text)));
  }
  select.value = value;
}

const mostNames = 24; // of the legend
function legend() {
  const name = (n) => make("span", {}, swatch(look(n)), runs.all.get(n).run);
  $("legend").replaceChildren(...(state.compared.length > mostNames ?
    [make("span", { class: "dim" }, `${state.compared.length} runs`)] : state.compared.map(name)),
  make("span", { class: "dim" }, state.compared.length ? "○ validation text" : ""));
}

// remember keeps in the address what is looked at, so that it can be kept and sent.
const mostRemembered = 100; // runs
function remember() {
  if (!read) return;
  const p = new URLSearchParams();
  if (state.compared.length <= mostRemembered) p.set("runs", names(state.compared).join(","));
  if (state.opened !== null) p.set("open", runs.all.get(state.opened).run);
  const usual = { over: "steps", sort: "started", below: "rate" };
  const rest = { over: view.over, logx: view.logX, logy: view.logY, filter: state.search, group: state.group,
    sort: state.sort, below: state.second };
  for (const [k, v] of Object.entries(rest)) if (v && v !== usual[k]) p.set(k, v);
  const hash = "#" + p.toString().replaceAll("%2C", ",");
  if (hash !== location.hash) history.replaceState(null, "", hash);
}

function recall() {
  state.search = $("search").value = wanted.get("filter") ?? "";
  state.group = wanted.get("group") ?? "";
  state.sort = wanted.get("sort") ?? "started";
  view.logX = $("logx").checked = wanted.has("logx");
  view.logY = $("logy").checked = wanted.has("logy");
  drawOver(axes.includes(wanted.get("over")) ? wanted.get("over") : "steps");
  drawBelow(wanted.get("below") ?? "rate");
}

// ---- what people do

function act(number, onTick) {
  state.cursor = number;
  if (onTick) toggle(number);
  else open(number);
}

function toggle(number) {
  chosen = true;
  state.compared = state.compared.includes(number) ? state.compared.filter((n) => n !== number)
    : [...state.compared, number];
  render();
}

// open shows a run, alone unless runs are compared.
function open(number) {
  chosen = true;
  if (!state.compared.includes(number)) {
    state.compared = state.compared.length > 1 ? [...state.compared, number] : [number];
  }
  state.opened = number;
  if (document.body.dataset.view === "runs") turnTo("run");
  render();
}

// turnTo shows one part of the page, where there is room for one alone.
function turnTo(name) {
  document.body.dataset.view = name;
  for (const b of document.querySelectorAll("nav button")) b.removeAttribute("aria-current");
  document.querySelector(`nav [data-view=${name}]`).setAttribute("aria-current", "page");
  render();
}

function move(by) {
  const at = state.visible.findIndex((r) => r.number === state.cursor);
  const row = state.visible[Math.max(0, Math.min(state.visible.length - 1, at < 0 ? 0 : at + by))];
  if (!row) return;
  state.cursor = row.number;
  reveal(row.number);
  drawList();
}

const axes = ["steps", "tokens", "seconds"];
function drawOver(axis) {
  view.over = axis;
  view.curves.clear();
  for (const r of document.querySelectorAll("[name=over]")) r.checked = r.value === axis;
  zoom(null);
  render();
}

function drawBelow(key) {
  $("second").value = key;
  state.second = below.key = $("second").value || "rate";
  below.label = $("second").selectedOptions[0]?.textContent ?? "";
  render();
}

function setTheme(theme) {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  if (theme) localStorage.theme = theme;
  document.documentElement.dataset.theme = localStorage.theme ?? system;
  forget();
  render();
}
const otherTheme = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");

function logarithmic(on) { view.logY = $("logy").checked = on; render(); }

function search(text) { state.search = text; $("list").scrollTop = 0; render(); }

const keys = {
  "/": () => {
    if (!listed()) turnTo("runs");
    $("search").focus();
  },
  "?": () => $("help").showModal(),
  x: () => drawOver(axes[(axes.indexOf(view.over) + 1) % axes.length]),
  l: () => logarithmic(!view.logY),
  t: otherTheme,
  Escape: () => { zoom(null); search($("search").value = ""); },
};

// goThrough moves in the list of runs, compares and opens, by a key; it reports false for other keys.
function goThrough(key) {
  const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page(), PageUp: -page(), Home: -1e9, End: 1e9 }[key];
  if (by) move(by);
  else if (key === " " && state.cursor !== null) toggle(state.cursor);
  else if (key === "Enter" && state.cursor !== null) open(state.cursor);
  else return false;
  return true;
}

const listed = () => getComputedStyle($("runs")).display !== "none";

function listen() {
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || $("help").open) return;
    const toList = e.target === $("list") || e.target === document.body && listed(); // nothing else takes the key
    if (toList && goThrough(e.key)) {
      e.preventDefault();
      $("list").focus();
      return;
    }
    const typing = e.target.matches("input[type=search], select");
    if (!keys[e.key] || typing && e.key !== "Escape") return;
    e.preventDefault();
    keys[e.key]();
    if (typing) $("list").focus();
  });
  $("search").addEventListener("keydown", (e) => {
    if (e.key !== "ArrowDown" && e.key !== "Enter") return;
    e.preventDefault();
    $("list").focus();
    move(0);
  });
  listenToList(act);
  $("list").addEventListener("scroll", () => requestAnimationFrame(() => drawList()));
  const on = (id, what, f) => $(id).addEventListener(what, (e) => f(e.target));
  on("search", "input", (e) => search(e.value));
  on("group", "change", (e) => { state.group = e.value; render(); });
  on("sort", "change", (e) => { state.sort = e.value; render(); });
  const compare = (rows) => { chosen = true; state.compared = rows.map((r) => r.number); render(); };
  on("all", "click", () => compare(state.visible));
  on("none", "click", () => compare([]));
  on("over", "change", (e) => drawOver(e.value));
  on("logx", "change", (e) => { view.logX = e.checked; render(); });
  on("logy", "change", (e) => logarithmic(e.checked));
  on("smooth", "input", (e) => { view.smooth = +e.value; redraw(); });
  on("reset", "click", () => zoom(null));
  on("second", "change", (e) => drawBelow(e.value));
  on("theme", "click", otherTheme);
  on("help-open", "click", () => $("help").showModal());
  for (const b of document.querySelectorAll("nav button")) b.addEventListener("click", () => turnTo(b.dataset.view));
  addEventListener("resize", render);
  setInterval(render, 15000); // times that have passed
}

listen();
recall();
setTheme();
turnTo(wanted.get("open") ? "run" : "runs");
follow();
