// How numbers and times are written, and how elements are made.

// make makes an element. Texts of runs are never parsed as HTML.
export function make(tag, properties = {}, ...children) {
  const e = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (key === "style") e.style.cssText = value;
    else if (value !== undefined && value !== false) e.setAttribute(key, value === true ? "" : value);
  }
  e.append(...children.filter((c) => c !== undefined && c !== null && c !== false));
  return e;
}

// short writes a number in few characters: 12.3 k.
export function short(v) {
  const a = Math.abs(v);
  for (const [unit, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (a >= unit) return +(v / unit).toPrecision(4) + " " + name;
  }
  return a !== 0 && a < 1e-3 ? v.toExponential(1) : String(+v.toPrecision(4));
}

// count writes a number of things, as it is unless it is long.
export const count = (n) => n < 1e5 ? String(n) : short(n);

export function duration(seconds) {
  if (seconds < 60) return +seconds.toPrecision(3) + " s";
  if (seconds < 3600) return +(seconds / 60).toPrecision(3) + " min";
  if (seconds < 2 * 86400) return +(seconds / 3600).toPrecision(3) + " h";
  return +(seconds / 86400).toPrecision(3) + " d";
}

export function ago(milliseconds) {
  const s = Math.max(0, (Date.now() - milliseconds) / 1000);
  return s < 10 ? "now" : duration(Math.floor(s < 60 ? s : s < 3600 ? s - s % 60 : s - s % 3600)) + " ago";
}

export const cell = (text, properties) => make("td", properties, text);

export const bar = (share) =>
  make("div", { class: "bar" }, make("i", { style: `width:${Math.min(100, 100 * share)}%` }));

// swatch is a piece of the line by which a run is drawn.
export const swatch = (drawn) =>
  make("span", { class: "swatch", style: `border-color:${drawn.color};border-top-style:${drawn.line ?? "solid"}` });
