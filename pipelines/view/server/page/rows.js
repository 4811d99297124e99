// What is known of the runs, and how they are filtered, grouped and sorted.

export const runs = {
  all: new Map(), // rows by their number
  columns: [], // of results: see the rows' cells
  parameters: [], // [key, value]: see the rows' parameters
  total: 0, ready: false, data: "", colors: [],
};

// take brings in a message of the stream of runs.
export function take(message) {
  runs.columns.push(...message.columns);
  runs.parameters.push(...message.parameters);
  runs.total = message.total;
  runs.ready = message.ready;
  for (const row of message.rows) {
    if (row.gone) { runs.all.delete(row.number); continue; }
    row.given = Object.fromEntries((row.parameters ?? []).map((n) => runs.parameters[n]));
    runs.all.set(row.number, row);
  }
}

// differing lists the parameters in which rows differ.
export function differing(rows) {
  const counts = new Map();
  for (const row of rows) for (const n of row.parameters ?? []) counts.set(n, (counts.get(n) ?? 0) + 1);
  const keys = new Set();
  for (const [n, count] of counts) if (count < rows.length) keys.add(runs.parameters[n][0]);
  return [...keys].sort();
}

// shortKey leaves out the stage of a parameter, unless another has the same name.
export function shortKey(full, all) {
  const short = full.slice(full.indexOf(".") + 1);
  return all.filter((k) => k === short || k.endsWith("." + short)).length > 1 ? full : short;
}

// field is the value of a row that a name stands for: a property, a result or a parameter.
export function field(row, name) {
  const own = { run: row.run, state: row.state, step: row.step, loss: row.loss, rate: row.rate,
    started: row.started, checkpoints: row.checkpoints }[name];
  if (own !== undefined) return own;
  const column = runs.columns.findIndex((c) => c.key === name || c.name === name);
  if (column >= 0 && row.cells?.[column]) return row.cells[column].value ?? row.cells[column].text;
  if (name in row.given) return row.given[name];
  const key = Object.keys(row.given).find((k) => k.endsWith("." + name));
  return key && row.given[key];
}

const comparison = /^([\w./-]+)(!=|<=|>=|=|<|>)(.*)$/;

// matcher makes a function of a filter's text: all of its words must be true of a row.
export function matcher(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return (row) => words.every((word) => {
    const parts = comparison.exec(word);
    if (!parts) return row.run.toLowerCase().includes(word) || row.state === word;
    const [, name, how, want] = parts, have = field(row, name);
    if (have === undefined) return how === "!=";
    const a = Number(have), b = Number(want), numbers = want !== "" && !isNaN(a) && !isNaN(b);
    const equal = numbers ? a === b : String(have).toLowerCase() === want;
    return { "=": equal, "!=": !equal, "<": numbers && a < b, "<=": numbers && a <= b, ">": numbers && a > b,
      ">=": numbers && a >= b }[how];
  });
}

const newest = (a, b) => b.started - a.started || a.number - b.number;

// sorter makes a comparison of rows: by start, name, loss, or a column of results, the better ones first.
export function sorter(by) {
  if (by === "started") return newest;
  if (by === "run") return (a, b) => a.run.localeCompare(b.run);
  const column = runs.columns.find((c) => c.key === by), sign = column?.better === "higher" ? -1 : 1;
  const value = (row) => {
    const v = Number(field(row, by));
    return isNaN(v) || field(row, by) === undefined ? Infinity : sign * v;
  };
  return (a, b) => (value(a) - value(b) || 0) || newest(a, b);
}

// groupOf is the heading under which a row stands.
export const groupOf = (row, by) => !by ? "" : by === "state" ? row.state : String(row.given[by] ?? "not given");
