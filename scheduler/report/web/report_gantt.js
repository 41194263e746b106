// The Gantt of nodes: one row a node, jobs as bars; an occupancy map instead while there are too many bars to see.

const DIGIT = new Map([..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"].map((c, i) => [c.charCodeAt(0), i]));

function unpack(text) { // whole numbers in base64 digits of five bits, the sixth says that more follow, sign in bit 0
  const numbers = [];
  let value = 0, scale = 1;
  for (let i = 0; i < text.length; i++) {
    const digit = DIGIT.get(text.charCodeAt(i));
    value += (digit & 31) * scale;
    scale *= 32;
    if (digit < 32) {
      numbers.push(value % 2 ? -(value - 1) / 2 : value / 2);
      value = 0;
      scale = 1;
    }
  }
  return numbers;
}

function sums(numbers) {
  let total = 0;
  return numbers.map((number) => (total += number));
}

const tables = data.tables.map((table) => ({
  ids: sums(unpack(table.ids)), submitted: sums(unpack(table.submitted)), sizes: unpack(table.sizes), user: unpack(table.user), users: table.users, names: table.names,
}));

// Bars as arrays of numbers, one entry a rectangle; a bar whose GPUs are not next to each other has several.
function layOut(run, nodes) {
  if (run.bars === null) return null;
  const numbers = unpack(run.bars);
  const out = { start: [], end: [], node: [], job: [], gpus: [], low: [], high: [] };
  const lanes = nodes.map((node) => new Float64Array(node[1]).fill(-1)); // until when each GPU of a node is held
  const shared = new Map(); // node and slot -> {lane, held: [[end, low, high]]}
  let start = 0, job = 0;
  for (let i = 0; i < numbers.length;) {
    start += numbers[i]; job += numbers[i + 1];
    const end = start + numbers[i + 2], node = numbers[i + 3], amount = numbers[i + 4];
    i += 5;
    const add = (gpus, low, high) => {
      out.start.push(start); out.end.push(end); out.node.push(node); out.job.push(job); out.gpus.push(gpus); out.low.push(low); out.high.push(high);
    };
    const free = lanes[node];
    if (amount % 2) {
      const share = (amount - 1) / 2000, key = node + "/" + numbers[i++];
      let slot = shared.get(key);
      if (!slot || slot.held.every(([until]) => until <= start)) shared.set(key, slot = { lane: Math.max(free.findIndex((until) => until <= start), 0), held: [] });
      slot.held = slot.held.filter(([until]) => until > start).sort((a, b) => a[1] - b[1]);
      let low = 0;
      for (const [, a, b] of slot.held) if (low + share > a + 1e-9 && low < b) low = b;
      low = Math.min(low, 1 - share);
      slot.held.push([end, low, low + share]);
      free[slot.lane] = Math.max(free[slot.lane], end);
      add(share, slot.lane + low, slot.lane + low + share);
    } else {
      let left = amount / 2, from = -1;
      for (let lane = 0; lane <= free.length && (left > 0 || from >= 0); lane++) {
        const takes = left > 0 && lane < free.length && free[lane] <= start;
        if (takes) { free[lane] = end; left--; if (from < 0) from = lane; }
        else if (from >= 0) { add(amount / 2, from, lane); from = -1; }
      }
    }
  }
  return out;
}

const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
const HEAT = { light: [[238, 242, 246], [158, 202, 225], [66, 146, 198], [8, 48, 107]], dark: [[24, 32, 42], [26, 74, 122], [66, 146, 198], [190, 226, 255]] };
const USERS = { light: ["#9aa3ad", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e0a800", "#56b4e9", "#6a3d9a"], dark: ["#5c6772", "#56b4e9", "#ff8b3d", "#2fcf9f", "#e9a3c9", "#f0c541", "#a9dcff", "#c0a0f0"] };

function blend(stops, share) {
  const at = clamp(share, 0, 1) * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2), f = at - i;
  return `rgb(${stops[i].map((c, k) => Math.round(c + (stops[i + 1][k] - c) * f)).join(" ")})`;
}

const gantt = (() => {
  const MOST_BARS = 8000, LEAST_ROW = 4, MOST_NAME = 24;
  const box = document.getElementById("gantt"), hint = document.getElementById("gantt-hint"), legend = document.getElementById("gantt-legend");
  const choice = document.getElementById("gantt-policy"), colouring = document.getElementById("gantt-colour");
  const laidOut = new Map();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let printing = false, rows = [], nodes = [], window_ = [0, 0], frame = null, brush = null, start = null;

  for (const [i, run] of runs.entries()) html("option", choice, run.policy).value = i;
  if (!tables.some((table) => table.users.length > 1)) colouring.closest("label").hidden = true;
  const current = () => runs[Number(choice.value) || 0];
  const theme = () => (dark.matches && !printing ? "dark" : "light");

  function pick() { // the chosen run: its nodes that have GPUs, by row
    nodes = current().nodes || runs[0].nodes;
    rows = nodes.map((_, i) => i).filter((i) => nodes[i][1] > 0);
    if (!laidOut.has(current())) laidOut.set(current(), layOut(current(), nodes));
    window_ = [0, rows.length];
  }

  const sizeColour = (s) => blend(VIRIDIS, (theme() === "dark" ? 0.18 : 0) + (data.sizes.length > 1 ? s / (data.sizes.length - 1) : 0.5) * (theme() === "dark" ? 0.82 : 0.93));

  function draw() {
    const width = box.clientWidth, left = Math.ceil(labelWidth()) + 16, right = width - 28, axisHeight = 44;
    const visible = window_[1] - window_[0], rowHeight = clamp(560 / Math.max(visible, 1), 0.01, 46), bottom = Math.max(Math.ceil(rowHeight * visible), 20), height = bottom + axisHeight;
    const ratio = devicePixelRatio || 1, style = getComputedStyle(document.documentElement), run = current(), unit = data.unit;
    const ink = (name) => (printing ? { "--soft": "#57606a", "--grid": "#e6eaef", "--line": "#d6dce3", "--paper": "#fff" }[name] : style.getPropertyValue(name));
    box.replaceChildren();
    const canvas = html("canvas", box);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "Gantt of nodes");
    brush = html("div", box);
    brush.className = "brush";
    brush.hidden = true;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const across = view.to - view.from || 1, x = (time) => left + (time - view.from) / across * (right - left), y = (row) => (row - window_[0]) * rowHeight;
    pen.fillStyle = theme() === "dark" ? "#18202a" : "#eef2f6";
    pen.fillRect(left, 0, right - left, rowHeight * visible);

    const rowOf = new Map(rows.map((node, row) => [node, row]));
    const bars = laidOut.get(run), rects = [];
    let inView = 0;
    if (bars) {
      for (let i = 0; i < bars.start.length; i++) {
        const row = rowOf.get(bars.node[i]);
        if (bars.end[i] * unit < view.from || bars.start[i] * unit > view.to || row < window_[0] || row >= window_[1]) continue;
        if (++inView <= MOST_BARS) rects.push(i);
      }
    }
    const asBars = bars && inView <= MOST_BARS && rowHeight >= LEAST_ROW;
    pen.save();
    pen.beginPath();
    pen.rect(left, 0, right - left, rowHeight * visible);
    pen.clip();
    frame = { left, right, rowHeight, bottom, x, y, asBars, rects: [], run };
    if (asBars) {
      const table = tables[run.jobs], gap = rowHeight >= 10 ? 2 : rowHeight >= 5 ? 1 : 0;
      for (const i of rects) {
        const row = rowOf.get(bars.node[i]), lane = (rowHeight - gap) / nodes[bars.node[i]][1];
        const x0 = x(bars.start[i] * unit), wide = Math.max(x(bars.end[i] * unit) - x0, 0.8), y0 = y(row) + bars.low[i] * lane, tall = Math.max((bars.high[i] - bars.low[i]) * lane, 0.5);
        pen.fillStyle = colouring.value === "user" ? USERS[theme()][table.user[bars.job[i]] % 8] : sizeColour(table.sizes[bars.job[i]]);
        pen.fillRect(x0, y0, wide, tall);
        if (wide > 3 && tall > 2.5) { pen.strokeStyle = ink("--paper"); pen.lineWidth = 0.7; pen.strokeRect(x0, y0, wide, tall); }
        frame.rects.push([x0, y0, wide, tall, i]);
        if (wide > 60 && tall > 11) label(pen, i, table, x0, y0, wide, tall);
      }
    } else {
      const { perRow, bins, cells } = run.heat, binWidth = data.span / bins;
      for (let row = Math.floor(window_[0] / perRow); row * perRow < window_[1]; row++) {
        const a = Math.max(row * perRow, window_[0]), b = Math.min((row + 1) * perRow, window_[1]);
        for (let bin = Math.floor(view.from / binWidth); bin < bins && bin * binWidth < view.to; bin++) {
          const x0 = x(bin * binWidth);
          pen.fillStyle = blend(HEAT[theme()], DIGIT.get(cells.charCodeAt(row * bins + bin)) / 63);
          pen.fillRect(x0, y(a), x((bin + 1) * binWidth) - x0 + 0.5, (b - a) * rowHeight - (rowHeight * perRow > 5 ? 1 : 0));
        }
      }
    }
    pen.restore();
    drawAxes(pen, ink, left, right, bottom, rowHeight);
    explain(asBars, bars, inView, rowHeight);
  }

  function tailOf(name) { // the end of a node's name is what tells it from its neighbours
    return name.length > MOST_NAME ? "…" + name.slice(1 - MOST_NAME) : name;
  }

  function labelWidth() {
    const pen = html("canvas").getContext("2d");
    pen.font = "12px system-ui, sans-serif";
    return Math.max(40, ...rows.slice(0, 300).map((node) => pen.measureText(tailOf(nodes[node][0])).width));
  }

  function label(pen, i, table, x0, y0, wide, tall) {
    const bars = laidOut.get(current()), job = bars.job[i];
    pen.save();
    pen.beginPath();
    pen.rect(x0, y0, wide, tall);
    pen.clip();
    const [r, g, b] = /^#/.test(pen.fillStyle) ? [1, 3, 5].map((k) => parseInt(pen.fillStyle.slice(k, k + 2), 16)) : [0, 0, 0];
    pen.fillStyle = r * 0.299 + g * 0.587 + b * 0.114 > 140 ? "#000" : "#fff";
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.fillText(table.names && table.names[job] || `job ${table.ids[job]}`, Math.max(x0, frame.left) + 4, y0 + tall / 2 + 0.5);
    pen.restore();
  }

  function drawAxes(pen, ink, left, right, bottom, rowHeight) {
    pen.fillStyle = ink("--soft");
    pen.strokeStyle = ink("--line");
    pen.lineWidth = 1;
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    const step = Math.max(Math.ceil(13 / rowHeight), 1);
    for (let row = window_[0]; row < window_[1]; row += step) {
      pen.fillText(tailOf(nodes[rows[row]][0]), left - 8, (row - window_[0]) * rowHeight + Math.max(rowHeight, 12) / 2);
    }
    const axis = timeAxis(view.from, view.to, Math.max((right - left) / 70, 2));
    pen.textAlign = "center";
    pen.beginPath();
    pen.moveTo(left, bottom + 0.5);
    pen.lineTo(right, bottom + 0.5);
    for (const [time, text] of axis.ticks) {
      const at = Math.round(frame.x(time)) + 0.5;
      pen.moveTo(at, bottom);
      pen.lineTo(at, bottom + 5);
      pen.fillText(text, at, bottom + 14);
    }
    pen.stroke();
    pen.fillText(axis.title, (left + right) / 2, bottom + 32);
  }

  function explain(asBars, bars, inView, rowHeight) {
    const run = current(), gpus = rows.slice(...window_).reduce((sum, node) => sum + nodes[node][1], 0);
    const what = `${(window_[1] - window_[0]).toLocaleString("en-US")} nodes, ${gpus.toLocaleString("en-US")} GPUs. `;
    hint.textContent = what + (asBars ? "Each bar is a job on a node, as thick as its share of the node's GPUs. Drag to zoom, sideways for time, across rows for nodes."
      : !bars ? "The map shows how many of a node's GPUs jobs hold. Single jobs are left out: the run has too many for a page."
      : `The map shows how many of a node's GPUs jobs hold. ${rowHeight < LEAST_ROW ? "Drag across fewer nodes" : `Drag to zoom in`} to see the jobs${rowHeight < LEAST_ROW ? "" : ` (${inView.toLocaleString("en-US")} bars in view)`}.`);
    if (!asBars && run.heat.perRow > 1) hint.textContent += ` A row of the map is ${run.heat.perRow} nodes.`;
    legend.replaceChildren();
    const entry = (text, background) => {
      const item = html("span", legend), swatch = html("span", item);
      swatch.className = "swatch";
      swatch.style.background = background;
      item.append(text);
    };
    if (!asBars) {
      html("span", legend, "GPUs held:");
      for (const share of [0, 0.25, 0.5, 0.75, 1]) entry(`${share * 100}%`, blend(HEAT[theme()], share));
    } else if (colouring.value === "user") {
      const table = tables[run.jobs];
      for (let i = 1; i <= table.users.length; i++) entry(table.users[i % table.users.length], USERS[theme()][i % table.users.length]);
    } else {
      html("span", legend, "GPUs of the job:");
      for (const [s, name] of data.sizes.entries()) if (name !== "none") entry(name, sizeColour(s));
    }
  }

  function place(event) {
    const area = box.getBoundingClientRect();
    return [clamp(event.clientX - area.left, frame.left, frame.right), clamp(event.clientY - area.top, 0, frame.bottom)];
  }

  const timeAt = (px) => view.from + (px - frame.left) / (frame.right - frame.left) * (view.to - view.from);
  const rowAt = (py) => clamp(Math.floor(py / frame.rowHeight) + window_[0], window_[0], window_[1] - 1);

  function hover(event) {
    const [px, py] = place(event), run = frame.run;
    if (!rows.length) return;
    if (!frame.asBars) {
      const { perRow, bins, cells } = run.heat, binWidth = data.span / bins;
      const row = Math.floor(rowAt(py) / perRow), bin = clamp(Math.floor(timeAt(px) / binWidth), 0, bins - 1);
      const name = nodes[rows[row * perRow]][0] + (perRow > 1 ? ` to ${nodes[rows[Math.min((row + 1) * perRow, rows.length) - 1]][0]}` : "");
      showTip(event, name, [[`${moment(bin * binWidth)} to ${moment((bin + 1) * binWidth)}`], [`${Math.round(100 * DIGIT.get(cells.charCodeAt(row * bins + bin)) / 63)}% of the GPUs held`]]);
      return;
    }
    const hit = frame.rects.findLast(([x0, y0, wide, tall]) => px >= x0 - 1 && px <= x0 + wide + 1 && py >= y0 && py <= y0 + tall);
    const node = nodes[rows[rowAt(py)]];
    if (!hit) { showTip(event, node[0], [[`${node[1]} GPUs${node[2] ? " " + node[2] : ""}`], [moment(timeAt(px))], ["idle here"]]); return; }
    const bars = laidOut.get(run), table = tables[run.jobs], i = hit[4], job = bars.job[i], from = bars.start[i] * data.unit, to = bars.end[i] * data.unit;
    const user = table.user[job] ? [[`user ${table.users[table.user[job]]}`]] : [];
    showTip(event, table.names && table.names[job] ? `${table.names[job]} (job ${table.ids[job]})` : `job ${table.ids[job]}`, [
      ...user, [`${count(bars.gpus[i])} GPU${bars.gpus[i] === 1 ? "" : "s"} on ${node[0]}; job size ${data.sizes[table.sizes[job]]}`],
      [`${moment(from)} to ${moment(to)}: ${duration(to - from)}`], [`${duration(Math.max(from - table.submitted[job] * data.unit, 0))} after its submission`]]);
  }

  box.classList.add("zoomable");
  box.addEventListener("pointerdown", (event) => { if (event.button === 0) { start = place(event); box.setPointerCapture(event.pointerId); } });
  box.addEventListener("pointermove", (event) => {
    if (start === null) { hover(event); return; }
    const [px, py] = place(event), tall = Math.abs(py - start[1]) > 24;
    Object.assign(brush.style, { left: Math.min(px, start[0]) + "px", width: Math.abs(px - start[0]) + "px",
      top: (tall ? Math.min(py, start[1]) : 0) + "px", height: (tall ? Math.abs(py - start[1]) : frame.bottom) + "px" });
    brush.hidden = false;
    hideTip();
  });
  box.addEventListener("pointerup", (event) => {
    if (start === null) return;
    const from = start, to = place(event);
    start = null;
    brush.hidden = true;
    const sideways = Math.abs(to[0] - from[0]) > 4, across = Math.abs(to[1] - from[1]) > 24;
    if (across) window_ = [rowAt(Math.min(from[1], to[1])), rowAt(Math.max(from[1], to[1])) + 1];
    if (sideways) setWindow(timeAt(Math.min(from[0], to[0])), timeAt(Math.max(from[0], to[0])));
    else if (across) redraw();
  });
  box.addEventListener("pointercancel", () => { start = null; brush.hidden = true; });
  box.addEventListener("pointerleave", hideTip);
  const reset = () => { window_ = [0, rows.length]; setWindow(0, data.span); };
  box.addEventListener("dblclick", reset);
  choice.addEventListener("change", () => { pick(); redraw(); });
  colouring.addEventListener("change", draw);
  dark.addEventListener("change", draw);
  addEventListener("beforeprint", () => { printing = true; draw(); });
  addEventListener("afterprint", () => { printing = false; draw(); });
  redraws.push(draw);
  return { pick, reset, rowsZoomed: () => window_[0] > 0 || window_[1] < rows.length };
})();

// --- put together ------------------------------------------------------------------------------------------------

function main() {
  document.getElementById("charts").hidden = false;
  const most = Math.max(0, ...runs.map((run) => run.gpus));
  document.getElementById("averaged").hidden = !runs.some((run) => run.waiting.lo || run.allocated.lo);
  document.getElementById("measured").hidden = !runs.some((run) => run.window);
  document.getElementById("run-times").hidden = !data.runTimes;
  legends();
  savers();
  means("mean-jct", "jct", "mean JCT");
  means("makespan", "makespan", "makespan");
  wasted("waste");
  timeChart("waiting", "waiting", "jobs", 0);
  timeChart("allocated", "allocated", "GPUs", most);
  timeChart("fragmentation", "fragmentation", "% of idle GPUs", 0);
  distribution("cdf-jct", "jct", "JCT", { below: data.runTimes });
  distribution("cdf-delay", "delay", "queueing delay");
  distribution("cdf-slowdown", "slowdown", "slowdown", { kind: FACTOR });
  distribution("cdf-rho", "rho", "rho (themis)", { kind: FACTOR, line: 1 });
  bySize("size-jct", "jct", "JCT");
  bySize("size-delay", "delay", "queueing delay");
  for (const group of ["users", "queues"]) {
    owners(`${group}-rho`, group, 2, "mean rho (themis)", FACTOR, 1);
    owners(`${group}-delay`, group, 4, "mean queueing delay", TIME);
  }
  gantt.pick();
  for (const button of document.querySelectorAll("[data-reset]")) button.addEventListener("click", gantt.reset);
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => {
      const half = (view.to - view.from) / 2 * Number(button.dataset.zoom), middle = (view.from + view.to) / 2;
      setWindow(middle - half, middle + half);
    });
  }
  for (const button of document.querySelectorAll("[data-move]")) {
    button.addEventListener("click", () => {
      const by = (view.to - view.from) * Number(button.dataset.move);
      setWindow(view.from + by, view.to + by);
    });
  }
  let waiting = 0;
  addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(redraw); });
  redraw();
  document.documentElement.dataset.drawn = "yes";
}

addEventListener("error", (event) => {
  const note = html("p", null, `The charts could not be drawn: ${event.message}`);
  note.className = "failed";
  document.body.prepend(note);
});
main();
