// The charts of a report page. All text reaches the page as text nodes: names of jobs, users and nodes are a stranger's.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs;
const shown = runs.map(() => true);
const view = { from: 0, to: data.span }; // the window of time that all charts over time show
const redraws = []; // draw functions, called when the window, the size or the shown policies change
const colourOf = (i) => `var(--p${i % 8})`;

// The first lines are the widest, so that one that lies under another still shows.
const lineWidth = (i, least, more) => least + more * Math.min(runs.length - 1 - i, 4);

// --- small helpers -----------------------------------------------------------------------------------------------

function html(tag, parent, text) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

function svg(tag, parent, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

function count(value) {
  return value.toLocaleString("en-US", { maximumFractionDigits: Math.abs(value) < 100 ? 1 : 0 });
}

const two = (value) => String(value).padStart(2, "0");

function duration(seconds) {
  if (seconds < 0) return "-" + duration(-seconds);
  if (seconds < 59.5) return (seconds >= 10 || Number.isInteger(seconds) ? seconds.toFixed(0) : seconds.toPrecision(2)) + "s";
  const whole = Math.round(seconds), minutes = Math.round(seconds / 60), hours = Math.round(seconds / 3600);
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  if (minutes < 1440) return `${Math.floor(minutes / 60)}h ${two(minutes % 60)}m`;
  return `${Math.floor(hours / 24)}d ${two(hours % 24)}h`;
}

function moment(seconds) { // a point in time since the first submission, exact to the second
  const s = Math.floor(seconds), part = data.unit < 1 ? (seconds - s).toFixed(3).slice(1) : "";
  const clock = `${two(Math.floor(s / 3600) % 24)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}${part}`;
  return s >= 86400 ? `day ${Math.floor(s / 86400)}, ${clock}` : clock;
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function lastAtMost(sorted, value) { // index of the last element <= value, -1 if none is
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle + 1; else high = middle;
  }
  return low - 1;
}

// --- axes --------------------------------------------------------------------------------------------------------

const TIME_UNITS = [["seconds", 1, [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30]], ["minutes", 60, [1, 2, 5, 10, 15, 30]],
  ["hours", 3600, [1, 2, 3, 6, 12]], ["days", 86400, [1, 2, 5, 7, 14, 28, 50, 100, 200, 365, 730, 1825, 3650, 7300]]];

function clockLabel(time, unit) { // a tick far from the start: 9d 12h, 9d 12:30, 12:30:15
  const s = Math.round(time), day = s >= 86400 ? `${Math.floor(s / 86400)}d ` : "", hour = Math.floor(s / 3600) % 24;
  if (unit === 3600) return `${day}${hour}h`;
  return `${day}${two(hour)}:${two(Math.floor(s / 60) % 60)}${unit === 1 ? ":" + two(s % 60) : ""}`;
}

function timeAxis(from, to, most) {
  for (const [name, unit, steps] of TIME_UNITS) {
    for (const step of steps) {
      const width = unit * step;
      if ((to - from) / width <= most) {
        const ticks = [];
        const label = from > 0 && unit < 86400 && to >= 2 * 3600 ? (time) => clockLabel(time, unit) : (time) => String(+(time / unit).toFixed(3));
        for (let i = Math.ceil(from / width - 1e-9); i * width <= to * (1 + 1e-12); i++) ticks.push([i * width, label(i * width)]);
        return { ticks, title: `${label(0) === "0" ? name : "time"} since the first submission` };
      }
    }
  }
  return { ticks: [[from, "0"]], title: "time" };
}

function linearTicks(top, most) {
  const raw = Math.max(top, 1e-9) / most, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= raw);
  const ticks = [];
  for (let i = 0; i * step <= top * 1.0001; i++) ticks.push(i * step);
  return ticks;
}

const LOG_TICKS = [[0.001, "1ms"], [0.01, "10ms"], [0.1, "0.1s"], [1, "1s"], [10, "10s"], [60, "1m"], [600, "10m"], [3600, "1h"], [36000, "10h"],
  [86400, "1d"], [864000, "10d"], [8640000, "100d"], [86400000, "1000d"]];

// Kinds of logarithmic axes: ticks, the lowest value that is told from 0, and how a value is written.
const TIME = { ticks: LOG_TICKS, lowest: (most) => (most > 10 ? 1 : 0.001), text: (value) => duration(value) };
const FACTOR = { ticks: [-3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((power) => [10 ** power, power < 0 ? (10 ** power).toFixed(-power) : (10 ** power).toLocaleString("en-US")]),
  lowest: () => 0.001, text: (value) => (value >= 1000 ? count(value) : value.toPrecision(3)) };

// A logarithmic scale for values from `least` to `most`; what is below its first tick is drawn on it.
function logScale(least, most, low, high, kind = TIME) {
  const lowest = kind.lowest(most), under = least < lowest;
  const floor = under ? lowest : kind.ticks.findLast(([value]) => value <= least)[0], top = Math.max(most, floor * 10) * 1.25;
  const scale = (value) => low + (high - low) * Math.log(Math.max(value, floor) / floor) / Math.log(top / floor);
  const invert = (position) => floor * Math.exp((position - low) / (high - low) * Math.log(top / floor));
  const ticks = kind.ticks.filter(([value]) => value >= floor && value <= top).map(([value, label]) => [value, under && value === floor ? "≤ " + label : label]);
  return { scale, invert, ticks };
}

// --- the tooltip -------------------------------------------------------------------------------------------------

const tip = document.getElementById("tip");

function showTip(event, title, lines) { // lines: [text] or [text, colour]
  tip.replaceChildren();
  html("b", tip, title);
  for (const [text, colour] of lines) {
    const line = html("div", tip);
    if (colour) html("span", line).className = "swatch", line.firstChild.style.background = colour;
    line.append(text);
  }
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = clamp(event.clientX + 16, 4, Math.max(innerWidth - box.width - 8, 4)) + "px";
  tip.style.top = (event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 18) + "px";
}

const hideTip = () => { tip.hidden = true; };

// --- the window of time ------------------------------------------------------------------------------------------

function setWindow(from, to) {
  const least = Math.max(data.unit * 5, data.span / 1e5);
  const width = clamp(to - from, Math.min(least, data.span), data.span);
  view.from = clamp(from, 0, data.span - width);
  view.to = view.from + width;
  redraw();
}

function redraw() {
  const whole = view.from <= 0 && view.to >= data.span;
  for (const button of document.querySelectorAll("[data-reset]")) button.hidden = whole && !gantt.rowsZoomed();
  for (const label of document.querySelectorAll("[data-window]")) label.textContent = whole ? "" : `${moment(view.from)} to ${moment(view.to)}`;
  for (const draw of redraws) draw();
}

// --- charts over time --------------------------------------------------------------------------------------------

function valueAt(series, time) { // [value, least, most] at a moment
  const i = series.t ? lastAtMost(series.t, time) : Math.min(Math.floor(time / series.bin), series.v.length - 1);
  return i < 0 ? [0] : series.lo ? [series.v[i], series.lo[i], series.hi[i]] : [series.v[i]];
}

function stepPath(series, values, x, y) {
  const from = (i) => (series.t ? series.t[i] : i * series.bin);
  const n = values.length;
  let i = Math.max(series.t ? lastAtMost(series.t, view.from) : Math.floor(view.from / series.bin), 0);
  let path = `M${x(view.from).toFixed(1)} ${y(values[i]).toFixed(1)}`;
  for (i += 1; i < n && from(i) <= view.to; i++) path += `H${x(from(i)).toFixed(1)}V${y(values[i]).toFixed(1)}`;
  return path + `H${x(view.to).toFixed(1)}`;
}

function most(series) { // the largest value in the window
  const values = series.hi || series.v, from = (i) => (series.t ? series.t[i] : i * series.bin);
  let top = 0;
  for (let i = 0; i < values.length && from(i) <= view.to; i++) if (i + 1 >= values.length || from(i + 1) >= view.from) top = Math.max(top, values[i]);
  return top;
}

function bandPath(series, x, y) {
  const first = clamp(Math.floor(view.from / series.bin), 0, series.v.length - 1);
  const last = clamp(Math.ceil(view.to / series.bin), first + 1, series.v.length);
  let there = "", back = "";
  for (let i = first; i < last; i++) {
    const a = x(Math.max(i * series.bin, view.from)).toFixed(1), b = x(Math.min((i + 1) * series.bin, view.to)).toFixed(1);
    there += `${there ? "L" : "M"}${a} ${y(series.hi[i]).toFixed(1)}H${b}`;
    back = `L${b} ${y(series.lo[i]).toFixed(1)}H${a}` + back;
  }
  return there + back + "Z";
}

function timeChart(id, key, unit, limit) {
  const box = document.getElementById(id);
  box.classList.add("zoomable");
  const margin = { left: 64, right: 28, top: 10, bottom: 42 }, height = 230;
  let x, invert, cross, brush, start = null;
  const draw = () => {
    const width = box.clientWidth;
    box.replaceChildren();
    const root = svg("svg", box, { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
    const right = width - margin.right, bottom = height - margin.bottom, across = view.to - view.from || 1;
    x = (time) => margin.left + (time - view.from) / across * (right - margin.left);
    invert = (position) => view.from + clamp((position - margin.left) / (right - margin.left), 0, 1) * across;
    const top = Math.max(limit, 1, ...runs.map((run, i) => (shown[i] ? most(run[key]) : 0)));
    const y = (value) => bottom - value / (top * 1.04) * (bottom - margin.top);
    for (const tick of linearTicks(top, 5)) {
      svg("line", root, { class: "grid", x1: margin.left, x2: right, y1: y(tick), y2: y(tick) });
      svg("text", root, { x: margin.left - 8, y: y(tick) + 4, "text-anchor": "end" }, count(tick));
    }
    drawTimeAxis(root, x, right, bottom, margin);
    svg("text", root, { x: 14, y: (bottom + margin.top) / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${(bottom + margin.top) / 2})` }, unit);
    const measured = runs.find((run, i) => shown[i] && run.window);
    if (measured) {
      const [a, b] = measured.window.map((time) => x(clamp(time, view.from, view.to)));
      svg("rect", root, { class: "measured", x: a, width: Math.max(b - a, 0), y: margin.top, height: bottom - margin.top });
    }
    if (limit) svg("line", root, { class: "limit", x1: margin.left, x2: right, y1: y(limit), y2: y(limit) });
    for (const [i, run] of runs.entries()) if (shown[i] && run[key].lo) svg("path", root, { d: bandPath(run[key], x, y), style: `fill:${colourOf(i)};fill-opacity:.16` });
    for (const [i, run] of runs.entries()) if (shown[i]) svg("path", root, { d: stepPath(run[key], run[key].v, x, y), style: `fill:none;stroke:${colourOf(i)};stroke-width:${lineWidth(i, 1.5, 0.5)}` });
    cross = svg("line", root, { class: "cross", y1: margin.top, y2: bottom, visibility: "hidden" });
    brush = svg("rect", root, { class: "brush", y: margin.top, height: bottom - margin.top, visibility: "hidden" });
  };
  const place = (event) => event.clientX - box.getBoundingClientRect().left;
  box.addEventListener("pointerdown", (event) => { if (event.button === 0) { start = place(event); box.setPointerCapture(event.pointerId); } });
  box.addEventListener("pointermove", (event) => {
    const at = place(event), time = invert(at);
    for (const [name, value] of Object.entries({ x1: x(time), x2: x(time), visibility: "visible" })) cross.setAttribute(name, value);
    if (start !== null) {
      const a = x(invert(Math.min(start, at))), b = x(invert(Math.max(start, at)));
      for (const [name, value] of Object.entries({ x: a, width: b - a, visibility: "visible" })) brush.setAttribute(name, value);
    }
    showTip(event, moment(time), runs.flatMap((run, i) => {
      if (!shown[i]) return [];
      const [value, low, high] = valueAt(run[key], time);
      return [[`${run.policy}: ${count(value)} ${unit}${low !== undefined && low !== high ? ` (${count(low)} to ${count(high)})` : ""}`, colourOf(i)]];
    }));
  });
  box.addEventListener("pointerup", (event) => {
    const from = start, to = place(event);
    start = null;
    brush.setAttribute("visibility", "hidden");
    if (from !== null && Math.abs(to - from) > 4) setWindow(invert(Math.min(from, to)), invert(Math.max(from, to)));
  });
  box.addEventListener("pointercancel", () => { start = null; });
  box.addEventListener("pointerleave", () => { cross.setAttribute("visibility", "hidden"); hideTip(); });
  box.addEventListener("dblclick", () => setWindow(0, data.span));
  redraws.push(draw);
}

function drawTimeAxis(root, x, right, bottom, margin) {
  const axis = timeAxis(view.from, view.to, Math.max((right - margin.left) / 70, 2));
  svg("line", root, { class: "axis", x1: margin.left, x2: right, y1: bottom, y2: bottom });
  for (const [time, label] of axis.ticks) {
    svg("line", root, { class: "axis", x1: x(time), x2: x(time), y1: bottom, y2: bottom + 5 });
    svg("text", root, { x: x(time), y: bottom + 18, "text-anchor": "middle" }, label);
  }
  svg("text", root, { x: (margin.left + right) / 2, y: bottom + 36, "text-anchor": "middle" }, axis.title);
}

// --- distributions -----------------------------------------------------------------------------------------------

function distribution(id, key, what, { kind = TIME, below = null, line } = {}) { // `below` and `line`: what to compare with
  const box = document.getElementById(id);
  const margin = { left: 56, right: 16, top: 10, bottom: 42 }, height = 280;
  let axis, cross, right;
  const draw = () => {
    const width = box.clientWidth, bottom = height - margin.bottom;
    right = width - margin.right;
    box.replaceChildren();
    const root = svg("svg", box, { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
    const filled = runs.map((run) => run[key]).filter((values) => values.length);
    if (below && below.length) filled.push(below);
    if (line !== undefined && filled.length) filled.push([line]);
    axis = logScale(Math.min(...filled.map((values) => values[0])), Math.max(1, ...filled.map((values) => values[values.length - 1])), margin.left, right, kind);
    const y = (share) => bottom - share * (bottom - margin.top);
    for (const share of [0, 0.25, 0.5, 0.75, 0.9, 1]) {
      svg("line", root, { class: "grid", x1: margin.left, x2: right, y1: y(share), y2: y(share) });
      svg("text", root, { x: margin.left - 8, y: y(share) + 4, "text-anchor": "end" }, `${share * 100}%`);
    }
    for (const [value, label] of axis.ticks) {
      svg("line", root, { class: "grid", x1: axis.scale(value), x2: axis.scale(value), y1: margin.top, y2: bottom });
      svg("text", root, { x: axis.scale(value), y: bottom + 18, "text-anchor": "middle" }, label);
    }
    svg("text", root, { x: (margin.left + right) / 2, y: bottom + 36, "text-anchor": "middle" }, `${what} (logarithmic)`);
    svg("text", root, { x: 12, y: (bottom + margin.top) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(bottom + margin.top) / 2})` }, "share of jobs");
    const curve = (values) => {
      let path = `M${axis.scale(0).toFixed(1)} ${y(0).toFixed(1)}`;
      for (let k = 0; k < values.length; k++) path += `L${axis.scale(values[k]).toFixed(1)} ${y((k + 1) / values.length).toFixed(1)}`;
      return path + `H${right}`;
    };
    for (const [i, run] of runs.entries()) {
      if (shown[i] && run[key].length) svg("path", root, { d: curve(run[key]), style: `fill:none;stroke:${colourOf(i)};stroke-width:${lineWidth(i, 1.75, 0.75)}` });
    }
    if (below && below.length) svg("path", root, { class: "limit", d: curve(below), style: "fill:none" });
    if (line !== undefined && filled.length) svg("line", root, { class: "limit", x1: axis.scale(line), x2: axis.scale(line), y1: margin.top, y2: bottom });
    cross = svg("line", root, { class: "cross", y1: margin.top, y2: bottom, visibility: "hidden" });
  };
  box.addEventListener("pointermove", (event) => {
    const at = clamp(event.clientX - box.getBoundingClientRect().left, margin.left, right), value = axis.invert(at);
    for (const [name, number] of Object.entries({ x1: at, x2: at, visibility: "visible" })) cross.setAttribute(name, number);
    showTip(event, `${what} ≤ ${kind.text(value)}`, runs.flatMap((run, i) =>
      shown[i] && run[key].length ? [[`${run.policy}: ${(100 * (lastAtMost(run[key], value) + 1) / run[key].length).toFixed(1)}% of jobs`, colourOf(i)]] : []));
  });
  box.addEventListener("pointerleave", () => { cross.setAttribute("visibility", "hidden"); hideTip(); });
  redraws.push(draw);
}

// --- by job size -------------------------------------------------------------------------------------------------

function bySize(id, key, what) {
  const box = document.getElementById(id);
  const margin = { left: 56, right: 12, top: 10, bottom: 56 }, height = 300;
  const draw = () => {
    const width = box.clientWidth, right = width - margin.right, bottom = height - margin.bottom;
    box.replaceChildren();
    const root = svg("svg", box, { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
    const boxes = runs.flatMap((run) => run.bySize.map((entry) => entry && entry[key])).filter(Boolean);
    const axis = logScale(Math.min(...boxes.map((entry) => entry[1])), Math.max(1, ...boxes.map((entry) => entry[6])), bottom, margin.top), y = axis.scale;
    for (const [value, label] of axis.ticks) {
      svg("line", root, { class: "grid", x1: margin.left, x2: right, y1: y(value), y2: y(value) });
      svg("text", root, { x: margin.left - 8, y: y(value) + 4, "text-anchor": "end" }, label);
    }
    const alive = runs.map((_, i) => i).filter((i) => shown[i]);
    const slot = (right - margin.left) / Math.max(data.sizes.length, 1), each = Math.min(slot * 0.8 / Math.max(alive.length, 1), 26);
    for (const [s, label] of data.sizes.entries()) {
      const centre = margin.left + slot * (s + 0.5);
      const entries = runs.map((run) => run.bySize[s] && run.bySize[s][key]);
      const most = Math.max(0, ...entries.map((entry) => (entry ? entry[0] : 0)));
      svg("text", root, { x: centre, y: bottom + 18, "text-anchor": "middle" }, label);
      svg("text", root, { x: centre, y: bottom + 34, "text-anchor": "middle", style: "font-size:11px" }, `${slot > 52 ? "n=" : ""}${most.toLocaleString("en-US")}`);
      if (s) svg("line", root, { class: "grid", x1: centre - slot / 2, x2: centre - slot / 2, y1: margin.top, y2: bottom });
      for (const [place, i] of alive.entries()) {
        const entry = entries[i];
        if (!entry) continue;
        const [n, p10, p25, p50, p75, p90, p99] = entry;
        const middle = centre + (place - (alive.length - 1) / 2) * each, half = Math.max(each / 2 - 1.5, 1.5), colour = colourOf(i);
        const group = svg("g", root, { style: `stroke:${colour}` });
        svg("line", group, { x1: middle, x2: middle, y1: y(p10), y2: y(p90), "stroke-width": 1.2 });
        svg("rect", group, { x: middle - half, width: 2 * half, y: y(p75), height: Math.max(y(p25) - y(p75), 1), "stroke-width": 1.2, style: `fill:color-mix(in srgb, ${colour} 35%, var(--paper))` });
        svg("line", group, { x1: middle - half, x2: middle + half, y1: y(p50), y2: y(p50), "stroke-width": 3 });
        svg("circle", group, { cx: middle, cy: y(p99), r: 2.5, style: `fill:${colour}` });
        const target = svg("rect", root, { x: middle - each / 2, width: each, y: margin.top, height: bottom - margin.top, fill: "transparent" });
        target.addEventListener("pointermove", (event) => showTip(event, `${runs[i].policy}, ${label} GPU${label === "1" ? "" : "s"}: ${n.toLocaleString("en-US")} jobs`,
          [["p99", p99], ["p90", p90], ["p75", p75], ["median", p50], ["p25", p25], ["p10", p10]].map(([name, value]) => [`${name}: ${duration(value)}`])));
        target.addEventListener("pointerleave", hideTip);
      }
    }
    svg("line", root, { class: "axis", x1: margin.left, x2: right, y1: bottom, y2: bottom });
    svg("text", root, { x: (margin.left + right) / 2, y: bottom + 51, "text-anchor": "middle" }, "GPUs of the job; below: number of jobs");
    svg("text", root, { x: 12, y: (bottom + margin.top) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(bottom + margin.top) / 2})` }, `${what} (logarithmic)`);
  };
  redraws.push(draw);
}

// --- legends -----------------------------------------------------------------------------------------------------

function legends() {
  for (const place of document.querySelectorAll("[data-legend]")) {
    for (const [i, run] of runs.entries()) {
      const button = html("button", place);
      button.type = "button";
      button.title = "show or hide";
      button.setAttribute("aria-pressed", "true");
      const swatch = html("span", button);
      swatch.className = "swatch";
      swatch.style.background = colourOf(i);
      button.append(run.policy);
      button.dataset.run = i;
      button.addEventListener("click", () => {
        shown[i] = !shown[i];
        for (const same of document.querySelectorAll(`[data-run="${i}"]`)) same.setAttribute("aria-pressed", shown[i]);
        redraw();
      });
    }
  }
}
