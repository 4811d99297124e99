// The tables of the compared runs: their results, and the parameters in which they differ.
import { differing, field, runs } from "./rows.js";
import { comparedRows, look } from "./state.js";
import { cell, make, swatch } from "./text.js";

const mostRows = 200, mostRuns = 12; // of the table of results; of the table of parameters, where runs are columns
let sorted = null; // by a column of the results: {key, down}

// drawResults draws a row for each run, with the columns that stages have declared; again is called when it is sorted.
export function drawResults(root, again) {
  const rows = comparedRows();
  const columns = runs.columns.map((c, i) => ({ ...c, i })).filter((c) => rows.some((r) => r.cells?.[c.i]));
  const best = new Map(columns.filter((c) => c.better).map((c) => {
    const values = rows.flatMap((r) => r.cells?.[c.i]?.value ?? []);
    return [c.i, c.better === "higher" ? Math.max(...values) : Math.min(...values)];
  }));
  if (sorted) {
    const value = (row) => field(row, sorted.key) ?? Infinity, sign = sorted.down ? -1 : 1;
    rows.sort((a, b) => sign * (value(a) - value(b)) || 0);
  }
  const heading = (key, name, about) => {
    const by = sorted?.key === key ? sorted.down ? "descending" : "ascending" : "none";
    const sort = () => { sorted = { key, down: by === "ascending" }; again(); };
    return make("th", { title: about, "aria-sort": by },
      make("button", { onclick: sort }, name + { none: "", ascending: " ↑", descending: " ↓" }[by]));
  };
  const result = (row, c) => {
    const is = row.cells?.[c.i], isBest = rows.length > 1 && is && best.get(c.i) === is.value;
    return make("td", {}, make("span", { class: isBest ? "best" : "" }, is?.text ?? "–"));
  };
  redo(root, make("table", {},
    make("thead", {}, make("tr", {}, make("th", {}, "run"), make("th", { class: "left" }, "state"),
      heading("step", "steps"), heading("loss", "loss", "of the last logged step (bits/token)"),
      make("th", {}, "checkpoint"), ...columns.map((c) => heading(c.key, c.name, c.about)))),
    make("tbody", {}, ...rows.slice(0, mostRows).map((row) => make("tr", {},
      make("td", {}, swatch(look(row.number)), " " + row.run),
      make("td", { class: "left" }, make("span", { class: "state " + row.state }, row.state)),
      cell(String(row.step)), cell(row.loss ? row.loss.toFixed(3) : "–"), cell(row.best ?? "–"),
      ...columns.map((c) => result(row, c))))),
    rows.length > mostRows && make("caption", { class: "dim" }, `the first ${mostRows} of ${rows.length}`)));
}

// drawParameters draws a row for each parameter in which the compared runs differ.
export function drawParameters(root, said) {
  const rows = comparedRows(), keys = rows.length > 1 ? differing(rows) : [], first = rows.slice(0, mostRuns);
  said.textContent = "compare two runs to see in what they differ";
  if (rows.length > 1) said.textContent = "the compared runs have the same";
  if (keys.length) {
    said.textContent = "in which the compared runs differ" + (rows.length > mostRuns ? `, the first ${mostRuns}` : "");
  }
  redo(root, keys.length ? make("table", {},
    make("thead", {}, make("tr", {}, make("th", {}, "parameter"), ...first.map((r) => make("th", {}, r.run)))),
    make("tbody", {}, ...keys.map((k) => make("tr", {}, cell(k), ...first.map((r) => cell(r.given[k] ?? "–"))))))
    : make("p"));
}

// redo brings a table up to date. Parts that are as before stay: a person may be marking a text or clicking a button.
function redo(root, table) {
  const old = root.firstChild, button = [...root.querySelectorAll("button")].indexOf(document.activeElement);
  if (old?.tagName !== table.tagName || old.children.length !== table.children.length) root.replaceChildren(table);
  else [...table.children].forEach((part, i) => {
    if (old.children[i].outerHTML !== part.outerHTML) old.children[i].replaceWith(part);
  });
  root.querySelectorAll("button")[button]?.focus();
}
