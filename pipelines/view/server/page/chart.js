// Charts of curves: lines with bands, dots for validations, a cursor that reads values, and a range to look closer at.
import { duration, make, short, swatch } from "./text.js";

// view is what all charts have in common.
export const view = {
  curves: new Map(), // by run: {lines: {key: {x, y, low, high}}, marks: [[x, y]]}
  chosen: [], // {run, name, color, line, bold}, in the order in which they are drawn
  over: "steps", logX: false, logY: false, smooth: 0,
  range: null, // [from, to] of the axis, or null for all of it
  cursor: null, // place on the axis
};

const charts = [];

// redraw draws all charts with the next frame.
let due = 0;
export function redraw() {
  due ||= requestAnimationFrame(() => { due = 0; charts.forEach((c) => c.draw()); });
}

// takePieces brings in a message of the stream of curves.
export function takePieces(pieces) {
  for (const p of pieces) {
    if (p.reset || !view.curves.has(p.run)) view.curves.set(p.run, { lines: {}, marks: [] });
    const curve = view.curves.get(p.run);
    for (const [key, piece] of Object.entries(p.lines)) {
      const line = curve.lines[key] ??= { x: [], y: [], low: [], high: [] };
      for (const part of ["x", "y", "low", "high"]) {
        line[part].length = Math.min(line[part].length, piece.keep);
        line[part].push(...piece[part] ?? []);
      }
    }
    if (p.marks) curve.marks = p.marks;
  }
  redraw();
}

// place finds the first point of a line at x or beyond.
function place(xs, x) {
  let low = 0, high = xs.length;
  while (low < high) { const mid = (low + high) >> 1; if (xs[mid] < x) low = mid + 1; else high = mid; }
  return low;
}

function smoothed(ys, weight) {
  if (!weight) return ys;
  let sum = 0, share = 0;
  return ys.map((y) => {
    sum = sum * weight + y * (1 - weight);
    share = share * weight + 1 - weight;
    return sum / share;
  });
}

// ticks are round numbers between two ends.
function ticks(low, high, count, log) {
  const all = [];
  if (log) {
    const steps = Math.log10(high / low) > 1.5 ? Math.log10(high / low) > 4 ? [1] : [1, 2, 5] : null;
    if (steps) {
      for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++)
        for (const s of steps) { const v = s * 10 ** p; if (v >= low && v <= high) all.push(v); }
      return all;
    }
  }
  let step = 10 ** Math.floor(Math.log10((high - low) / count));
  step *= [1, 2, 5, 10].find((m) => (high - low) / (step * m) <= count) ?? 10;
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) {
    all.push(Math.abs(v) < step / 1e6 ? 0 : v);
  }
  return all;
}

const dashes = { solid: [], dashed: [6, 3], dotted: [2, 3] };
const many = 40; // lines; then they are drawn thinner, and without dots
const left = 56, right = 12, top = 8, bottom = 36;

export class Chart {
  constructor(root, key, label, dots) {
    Object.assign(this, { root, key, label, dots });
    this.canvas = make("canvas", { tabindex: 0, role: "img" });
    this.tip = make("div", { class: "tip", hidden: true });
    this.said = make("div", { role: "status", "aria-live": "polite", style: "position:absolute;left:-9999px" });
    root.append(this.canvas, this.tip, this.said);
    charts.push(this);
    new ResizeObserver(redraw).observe(this.canvas);
    this.listen();
  }

  listen() {
    const at = (e) => e.clientX - this.canvas.getBoundingClientRect().left;
    this.canvas.addEventListener("pointermove", (e) => {
      view.cursor = this.value(at(e));
      this.pointer = e.clientY - this.canvas.getBoundingClientRect().top;
      this.drag &&= [this.drag[0], at(e)];
      redraw();
    });
    this.canvas.addEventListener("pointerleave", () => { view.cursor = this.pointer = null; redraw(); });
    this.canvas.addEventListener("pointerdown", (e) => {
      if (e.pointerType === "touch") return; // a finger reads values
      this.drag = [at(e), at(e)];
      this.canvas.setPointerCapture(e.pointerId);
    });
    this.canvas.addEventListener("pointerup", () => {
      if (this.drag && Math.abs(this.drag[0] - this.drag[1]) > 8) {
        zoom(this.drag.map((x) => this.value(x)).sort((a, b) => a - b));
      }
      this.drag = null;
      redraw();
    });
    this.canvas.addEventListener("dblclick", () => zoom(null));
    this.canvas.addEventListener("keydown", (e) => this.key_(e));
    this.canvas.addEventListener("blur", () => { view.cursor = null; redraw(); });
  }

  key_(e) {
    if (!this.sx) return; // nothing is drawn
    const [from, to] = this.x, width = to - from, middle = view.cursor ?? (from + to) / 2;
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    if (e.key in moves) {
      view.cursor = Math.max(from, Math.min(to, middle + moves[e.key] * width / (e.shiftKey ? 10 : 100)));
      this.said.textContent = this.reading().map((r) => `${r.name} ${short(r.y)}`).slice(0, 5).join(", ");
    } else if (e.key === "+" || e.key === "=") zoom([middle - width / 4, middle + width / 4]);
    else if (e.key === "-") zoom([Math.max(this.whole[0], middle - width), Math.min(this.whole[1], middle + width)]);
    else if (e.key === "0") zoom(null);
    else return;
    e.preventDefault();
    redraw();
  }

  // lines are what is drawn: the chosen runs whose curve is known.
  lines() {
    return view.chosen.flatMap((run) => {
      const curve = view.curves.get(run.run), line = curve?.lines[this.key];
      if (!line?.x.length) return [];
      const marks = this.dots && view.chosen.length <= many ? curve.marks : [];
      return [{ ...run, dash: dashes[run.line], ...line, y: smoothed(line.y, view.smooth), marks }];
    });
  }

  // measure finds the ranges of both axes. The first losses fall from log2(vocabulary); they would press all else flat.
  measure(lines) {
    let low = Infinity, high = -Infinity;
    for (const l of lines) { low = Math.min(low, l.x[0]); high = Math.max(high, l.x.at(-1)); }
    this.whole = view.logX ? [Math.max(low, 1e-3), high * 1.02] : [Math.min(low, 0), high * 1.01];
    this.x = view.range ?? this.whole;
    const from = view.range || view.logX || !this.dots ? this.x[0] : this.x[0] + 0.02 * (this.x[1] - this.x[0]);
    low = Infinity; high = -Infinity;
    for (const l of lines) {
      const first = Math.max(0, Math.min(place(l.x, from), l.x.length - 2)), last = place(l.x, this.x[1]);
      const seen = l.y.slice(first, last + 1);
      for (const [x, y] of l.marks) if (x >= from && x <= this.x[1]) seen.push(y);
      for (const y of seen) { low = Math.min(low, y); high = Math.max(high, y); }
    }
    const log = view.logY && this.dots && low > 0;
    if (!this.dots) low = Math.min(low, 0);
    const room = (high - low || Math.abs(high) || 1) * 0.04;
    this.y = log ? [low / 1.02, high * 1.02] : [low === 0 ? 0 : low - room, high + room];
    const scale = (ends, log, at, length) => {
      const f = log ? Math.log : (v) => v, a = f(ends[0]), b = f(ends[1]);
      return { to: (v) => at + length * (f(v) - a) / (b - a || 1),
        from: (p) => { const v = a + (b - a) * (p - at) / length; return log ? Math.exp(v) : v; } };
    };
    this.sx = scale(this.x, view.logX, left, this.width - left - right);
    this.sy = scale(this.y, log, this.height - bottom, top + bottom - this.height);
    this.logY = log;
  }

  value(pixel) { return this.sx ? Math.max(this.x[0], Math.min(this.x[1], this.sx.from(pixel))) : 0; }

  draw() {
    const ratio = devicePixelRatio || 1;
    this.width = this.canvas.clientWidth; this.height = this.canvas.clientHeight;
    if (!this.width) return;
    const wide = Math.round(this.width * ratio), high = Math.round(this.height * ratio);
    if (this.canvas.width !== wide || this.canvas.height !== high) {
      Object.assign(this.canvas, { width: wide, height: high });
    }
    const g = this.canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name);
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, this.width, this.height);
    g.font = "12px system-ui, sans-serif";
    g.fillStyle = color("--dim");
    const lines = this.lines();
    this.canvas.setAttribute("aria-label",
      `${this.label} over ${view.over} of ${lines.length} runs; arrow keys read values`);
    if (!lines.length) {
      this.sx = null; this.tip.hidden = true; g.textAlign = "center";
      const why = view.chosen.length ? `no ${this.label} of these runs yet` : "choose runs to compare";
      g.fillText(why, this.width / 2, this.height / 2);
      return;
    }
    this.measure(lines);
    this.axes(g, color);
    g.save();
    g.beginPath(); g.rect(left, top, this.width - left - right, this.height - top - bottom); g.clip();
    for (const l of lines) if (l.low.length === l.x.length && !view.smooth) this.band(g, l);
    for (const l of lines) this.line(g, l, lines.length);
    for (const l of lines) this.marks(g, l, color("--card"));
    this.overlay(g, color);
    g.restore();
  }

  axes(g, color) {
    g.strokeStyle = color("--grid"); g.lineWidth = 1; g.textAlign = "right"; g.textBaseline = "middle";
    for (const v of ticks(...this.y, this.height > 200 ? 7 : 4, this.logY)) {
      const y = Math.round(this.sy.to(v)) + 0.5;
      g.beginPath(); g.moveTo(left, y); g.lineTo(this.width - right, y); g.stroke();
      g.fillText(short(v), left - 6, y);
    }
    g.textAlign = "center"; g.textBaseline = "top";
    let free = -Infinity;
    for (const v of ticks(...this.x, Math.max(3, this.width / 110), view.logX)) {
      const x = this.sx.to(v), text = view.over === "seconds" ? duration(v) : short(v);
      const wide = g.measureText(text).width / 2 + 5;
      if (x < left - 1 || x - wide < free) continue;
      free = x + wide;
      g.beginPath(); g.moveTo(x, top); g.lineTo(x, this.height - bottom); g.stroke();
      g.fillText(text, Math.min(x, this.width - wide), this.height - bottom + 6);
    }
    g.textAlign = "right"; g.textBaseline = "bottom";
    g.fillText(view.over === "seconds" ? "time of training" : view.over, this.width - right, this.height - 2);
  }

  // span is which points of a line lie in the range, and one on each side.
  span(l) { return [Math.max(0, place(l.x, this.x[0]) - 1), Math.min(l.x.length, place(l.x, this.x[1]) + 2)]; }

  band(g, l) {
    const [from, to] = this.span(l);
    g.beginPath();
    for (let i = from; i < to; i++) g.lineTo(this.sx.to(l.x[i]), this.sy.to(l.high[i]));
    for (let i = to - 1; i >= from; i--) g.lineTo(this.sx.to(l.x[i]), this.sy.to(l.low[i]));
    g.globalAlpha = 0.14; g.fillStyle = l.color; g.fill(); g.globalAlpha = 1;
  }

  line(g, l, count) {
    const [from, to] = this.span(l);
    g.beginPath();
    for (let i = from; i < to; i++) if (l.y[i] !== null) g.lineTo(this.sx.to(l.x[i]), this.sy.to(l.y[i]));
    g.strokeStyle = l.color; g.lineWidth = l.bold ? 2.6 : count > many ? 1 : 1.6; g.setLineDash(l.dash);
    g.globalAlpha = count > many && !l.bold ? 0.45 : 1; g.lineJoin = "round"; g.stroke();
    g.setLineDash([]); g.globalAlpha = 1;
  }

  marks(g, l, inside) {
    g.strokeStyle = l.color; g.fillStyle = inside; g.lineWidth = 1.8;
    for (const [x, y] of l.marks) {
      g.beginPath(); g.arc(this.sx.to(x), this.sy.to(y), 3.6, 0, 7); g.fill(); g.stroke();
    }
  }

  // reading is what the lines say at the cursor.
  reading() {
    return this.lines().flatMap((l) => {
      let i = place(l.x, view.cursor);
      if (i > 0 && (i === l.x.length || view.cursor - l.x[i - 1] < l.x[i] - view.cursor)) i--;
      const slack = (l.x.at(-1) - l.x[0]) / l.x.length;
      return view.cursor > l.x.at(-1) + slack ? [] : [{ ...l, x: l.x[i], y: l.y[i], low: l.low[i], high: l.high[i] }];
    });
  }

  overlay(g, color) {
    if (this.drag) {
      g.fillStyle = color("--accent"); g.globalAlpha = 0.15;
      g.fillRect(Math.min(...this.drag), top, Math.abs(this.drag[0] - this.drag[1]), this.height); g.globalAlpha = 1;
    }
    this.tip.hidden = true;
    if (view.cursor === null) return;
    const x = this.sx.to(view.cursor);
    g.strokeStyle = color("--dim"); g.lineWidth = 1;
    g.beginPath(); g.moveTo(x, top); g.lineTo(x, this.height - bottom); g.stroke();
    let values = this.reading();
    for (const v of values.length > many ? [] : values) {
      g.fillStyle = v.color; g.beginPath(); g.arc(this.sx.to(v.x), this.sy.to(v.y), 4, 0, 7); g.fill();
    }
    if (this.pointer == null && document.activeElement !== this.canvas) return;
    this.showTip(values, x);
  }

  showTip(values, x) {
    const near = (v) => Math.abs(this.sy.to(v.y) - (this.pointer ?? 0)), all = values.length;
    values.sort((a, b) => near(a) - near(b));
    const nearest = values[0];
    values = values.slice(0, 10).sort((a, b) => b.y - a.y);
    const at = view.over === "seconds" ? duration(view.cursor) : `${short(Math.round(view.cursor))} ${view.over}`;
    this.tip.replaceChildren(make("div", { class: "dim" }, at), ...values.map((v) =>
      make("div", { class: v === nearest && this.pointer != null ? "near" : "" },
        swatch(v), make("span", { class: "name" }, v.name),
        make("b", {}, v.y === null ? "–" : short(v.y)))),
      all > 10 ? make("div", { class: "dim" }, `and ${all - 10} more`) : "");
    this.tip.hidden = false;
    const wide = this.tip.offsetWidth;
    this.tip.style.left = Math.max(0, x + 14 + wide > this.width ? x - 14 - wide : x + 14) + "px";
    this.tip.style.top = top + 14 + "px";
  }
}

// zoom looks closer at a range of the axis, or at all of it.
export function zoom(range) {
  view.range = range && range[1] > range[0] ? range : null;
  document.getElementById("reset").hidden = !view.range;
  redraw();
}
