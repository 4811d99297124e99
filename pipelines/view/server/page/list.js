// The list of runs. Only those rows are made that are in sight, so that a thousand runs are as quick as ten.
import { groupOf, runs, shortKey } from "./rows.js";
import { look, state } from "./state.js";
import { ago, bar, count, make } from "./text.js";

// Sizes in pixels; beyond: how far above and below those in sight rows are made.
const rowHeight = 62, headingHeight = 28, tickWidth = 34, beyond = 200;
const root = document.getElementById("list");
let places = new Map(); // where rows are, by the numbers of runs

// listenToList calls act with the run that is clicked on. Rows are made anew while a run goes on, also between the two
// halves of a click, so a click is of the place where a row is.
export function listenToList(act) {
  let down = null;
  const at = (e) => {
    const box = root.getBoundingClientRect(), y = e.clientY - box.top + root.scrollTop;
    const row = [...places].find(([, top]) => y >= top && y < top + rowHeight);
    return row && { number: row[0], onTick: e.clientX - box.left < tickWidth };
  };
  root.addEventListener("pointerdown", (e) => { down = e.button === 0 ? at(e) : null; });
  root.addEventListener("pointercancel", () => { down = null; }); // the list is scrolled
  root.addEventListener("pointerup", (e) => {
    const up = at(e);
    if (down && up && down.number === up.number) act(up.number, up.onTick && down.onTick);
    down = null;
  });
}

export function drawList() {
  const seen = root.scrollTop, parts = [];
  const inSight = (y, height) => y + height > seen - beyond && y < seen + root.clientHeight + beyond;
  let y = 0, before = null;
  places = new Map();
  const size = new Map();
  if (state.group) for (const row of state.visible) {
    const group = groupOf(row, state.group);
    size.set(group, (size.get(group) ?? 0) + 1);
  }
  state.visible.forEach((row, i) => {
    const group = state.group ? groupOf(row, state.group) : null;
    if (group !== before) {
      const text = `${shortKey(state.group, state.keys)}: ${group} (${size.get(group)})`;
      if (inSight(y, headingHeight)) parts.push(heading(text, y));
      y += headingHeight;
      before = group;
    }
    places.set(row.number, y);
    if (inSight(y, rowHeight)) parts.push(item(row, i, y));
    y += rowHeight;
  });
  if (!state.visible.length) parts.push(make("p", { class: "dim", style: "padding:14px" }, nothing()));
  parts.push(make("div", { style: `height:${y}px`, role: "presentation" }));
  root.replaceChildren(...parts);
  root.scrollTop = seen;
  if (state.cursor !== null) root.setAttribute("aria-activedescendant", "row-" + state.cursor);
}

function nothing() {
  if (!runs.ready) return "Reading …";
  return runs.total ? "No run fits the filter." : "There are no runs yet: task pipeline:v77 starts one.";
}

const heading = (text, y) =>
  make("div", { class: "heading", role: "presentation", style: `top:${y}px;height:${headingHeight}px` }, text);

function item(row, i, y) {
  const drawn = look(row.number), is = row.number === state.cursor;
  const differs = state.keys.filter((k) => !k.endsWith("seed") && k !== state.group).slice(0, 3)
    .map((k) => `${shortKey(k, state.keys)} ${row.given[k] ?? "–"}`);
  const steps = row.steps ? `${count(row.step)} / ${count(row.steps)}` : row.step ? `step ${count(row.step)}` : "";
  const says = [steps, row.loss ? row.loss.toFixed(3) : "", ...differs].filter(Boolean).join(" · ");
  const quiet = row.state === "running" && Date.now() - row.changed > 300e3;
  const when = (quiet ? "quiet since " : "") + ago(row.changed);
  return make("div", {
    class: "row" + (is ? " cursor" : ""), role: "option", id: "row-" + row.number, "aria-selected": String(!!drawn),
    "aria-setsize": state.visible.length, "aria-posinset": i + 1, title: row.problem,
    "aria-label": `${row.run}, ${row.state}, ${says}, ${when}`, style: `top:${y}px;height:${rowHeight}px`,
  },
  make("span", { class: "tick", title: "compare (space)",
    style: drawn ? `background:${drawn.color};border-color:${drawn.color}` : "" }),
  make("div", { class: "body" },
    make("div", { class: "top" }, make("span", { class: "name" }, row.run),
      make("span", { class: "state " + row.state }, row.state)),
    bar(row.steps ? row.step / row.steps : 0),
    make("div", { class: "sub dim" }, make("span", {}, says), make("span", {}, when))));
}

// page is how many rows fit into the list.
export const page = () => Math.max(1, Math.floor(root.clientHeight / rowHeight) - 1);

// reveal scrolls a row into sight.
export function reveal(number) {
  const y = places.get(number);
  root.scrollTop = Math.min(y, Math.max(root.scrollTop, y + rowHeight - root.clientHeight));
}
