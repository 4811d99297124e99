// What the person looks at: which runs are compared, which one is open, how the list is filtered, grouped and sorted.
import { groupOf, runs } from "./rows.js";

export const state = {
  compared: [], // numbers of runs, in the order in which they were chosen
  opened: null, cursor: null, // numbers of runs
  search: "", group: "", sort: "started",
  second: "rate", // what the second chart shows
  visible: [], // rows of the list, in its order
  keys: [], // parameters in which runs differ
};

export const comparedRows = () => state.compared.map((n) => runs.all.get(n));

export const names = (numbers) => numbers.flatMap((n) => runs.all.get(n)?.run ?? []);

const lines = ["solid", "dashed", "dotted"];

// look is how a run is drawn, by its place among those compared, or by its group; null for a run that is not compared.
export function look(number) {
  let slot = state.compared.indexOf(number);
  if (slot < 0) return null;
  if (state.group) {
    const groups = comparedRows().map((row) => groupOf(row, state.group));
    slot = [...new Set(groups)].sort().indexOf(groups[slot]);
  }
  const color = runs.colors[slot % runs.colors.length];
  const text = getComputedStyle(document.documentElement).getPropertyValue("--text");
  const line = state.group ? 0 : Math.floor(slot / runs.colors.length) % lines.length;
  return { color: color === "#000000" ? text : color, line: lines[line] };
}
