// Charts that set policies side by side: bars with a bound as a line, GPU time that was wasted, users and queues.

const WASTE = [["overhead", "--w0"], ["lost work", "--w1"], ["failed", "--w2"], ["held idle", "--w3"]];

function shortened(name, most) {
  return name.length > most ? name.slice(0, most - 1) + "…" : name;
}

function textWidth(texts) {
  const pen = html("canvas").getContext("2d");
  pen.font = "12px system-ui, sans-serif";
  return Math.max(0, ...texts.map((text) => pen.measureText(text).width));
}

function niceTime(top, most) { // ticks of a linear axis of durations
  for (const [, unit, steps] of TIME_UNITS) {
    for (const step of steps) {
      if (top / (unit * step) <= most) {
        const ticks = [];
        for (let i = 0; i * unit * step <= top * 1.0001; i++) ticks.push([i * unit * step, i ? duration(i * unit * step).replace(/ 00?[msh]?$/, "") : "0"]);
        return ticks;
      }
    }
  }
  return [[0, "0"]];
}

// One bar a policy; `key` is [value, bound or null] of data.runs[i].means.
function means(id, key, what) {
  const box = document.getElementById(id);
  const known = runs.some((run) => run.means[key][1] !== null);
  document.querySelector(`[data-bound="${key}"]`).hidden = !known;
  redraws.push(() => {
    const alive = runs.map((_, i) => i).filter((i) => shown[i] && runs[i].means[key][0] !== null);
    const names = alive.map((i) => shortened(runs[i].policy, 26)), left = Math.ceil(textWidth(names)) + 14;
    const row = 26, width = box.clientWidth, right = width - 74, bottom = row * Math.max(alive.length, 1) + 6, height = bottom + 42;
    const top = Math.max(1e-9, ...alive.flatMap((i) => runs[i].means[key])) * 1.02;
    const x = (value) => left + value / top * (right - left);
    box.replaceChildren();
    const root = svg("svg", box, { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": what });
    for (const [value, label] of niceTime(top, Math.max((right - left) / 70, 2))) {
      svg("line", root, { class: "grid", x1: x(value), x2: x(value), y1: 4, y2: bottom });
      svg("text", root, { x: x(value), y: bottom + 16, "text-anchor": "middle" }, label);
    }
    svg("line", root, { class: "axis", x1: left, x2: left, y1: 4, y2: bottom });
    svg("text", root, { x: (left + right) / 2, y: bottom + 36, "text-anchor": "middle" }, what);
    for (const [place, i] of alive.entries()) {
      const [value, bound] = runs[i].means[key], y = 6 + place * row;
      svg("text", root, { x: left - 7, y: y + row / 2 + 2, "text-anchor": "end", class: "name" }, names[place]);
      svg("rect", root, { x: left, y: y + 2, width: Math.max(x(value) - left, 1), height: row - 8, style: `fill:${colourOf(i)}` });
      svg("text", root, { x: x(value) + 6, y: y + row / 2 + 2, class: "name" }, duration(value));
      if (bound !== null) svg("line", root, { class: "bound", x1: x(bound), x2: x(bound), y1: y - 1, y2: y + row - 3 });
      const target = svg("rect", root, { x: 0, y, width, height: row, fill: "transparent" });
      target.addEventListener("pointermove", (event) => showTip(event, runs[i].policy, [[`${what}: ${duration(value)}`, colourOf(i)],
        ...(bound === null ? [] : [[`bound: ${duration(bound)}`], [`${(100 * (value / bound - 1)).toFixed(1)}% above it`]])]));
      target.addEventListener("pointerleave", hideTip);
    }
  });
}

function wasted(id) {
  const box = document.getElementById(id), total = (run) => run.waste.reduce((sum, hours) => sum + hours, 0);
  if (!runs.some((run) => total(run) > 0)) return;
  box.closest("figure").hidden = false;
  const kinds = WASTE.map((_, k) => k).filter((k) => runs.some((run) => run.waste[k] > 0));
  const legend = document.getElementById(id + "-legend");
  for (const k of kinds) {
    const item = html("span", legend), swatch = html("span", item);
    swatch.className = "swatch";
    swatch.style.background = `var(${WASTE[k][1]})`;
    item.append(WASTE[k][0]);
  }
  redraws.push(() => {
    const alive = runs.map((_, i) => i).filter((i) => shown[i]);
    const names = alive.map((i) => shortened(runs[i].policy, 26)), left = Math.ceil(textWidth(names)) + 14;
    const row = 26, width = box.clientWidth, right = width - 90, bottom = row * Math.max(alive.length, 1) + 6, height = bottom + 42;
    const top = Math.max(1e-9, ...alive.map((i) => total(runs[i]))) * 1.02, x = (value) => left + value / top * (right - left);
    box.replaceChildren();
    const root = svg("svg", box, { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "wasted GPU time" });
    for (const tick of linearTicks(top, Math.max((right - left) / 90, 2))) {
      svg("line", root, { class: "grid", x1: x(tick), x2: x(tick), y1: 4, y2: bottom });
      svg("text", root, { x: x(tick), y: bottom + 16, "text-anchor": "middle" }, count(tick));
    }
    svg("line", root, { class: "axis", x1: left, x2: left, y1: 4, y2: bottom });
    svg("text", root, { x: (left + right) / 2, y: bottom + 36, "text-anchor": "middle" }, "GPU-hours");
    for (const [place, i] of alive.entries()) {
      const y = 6 + place * row;
      let at = 0;
      svg("text", root, { x: left - 7, y: y + row / 2 + 2, "text-anchor": "end", class: "name" }, names[place]);
      for (const k of kinds) {
        svg("rect", root, { x: x(at), y: y + 2, width: Math.max(x(at + runs[i].waste[k]) - x(at), 0), height: row - 8, style: `fill:var(${WASTE[k][1]})` });
        at += runs[i].waste[k];
      }
      svg("text", root, { x: x(at) + 6, y: y + row / 2 + 2, class: "name" }, `${count(at)} GPU h`);
      const target = svg("rect", root, { x: 0, y, width, height: row, fill: "transparent" });
      target.addEventListener("pointermove", (event) => showTip(event, runs[i].policy, kinds.map((k) => [`${WASTE[k][0]}: ${count(runs[i].waste[k])} GPU h`, `var(${WASTE[k][1]})`])));
      target.addEventListener("pointerleave", hideTip);
    }
  });
}

// A row for each user or queue and a dot for each policy, at a figure of theirs on a logarithmic axis.
function owners(id, group, figure, what, kind, line) {
  const box = document.getElementById(id), of = data[group], noun = group.slice(0, -1);
  if (!of) return;
  document.getElementById(group).hidden = false;
  document.getElementById(group + "-more").textContent = of.more ? ` ${of.more.toLocaleString("en-US")} more have less and are left out.` : "";
  const rowHeight = 24, values = of.runs.flatMap((rows) => rows.map((entry) => entry && entry[figure])).filter((value) => value !== null);
  redraws.push(() => {
    const names = of.names.map((name) => shortened(name || "(none)", 20)), left = Math.ceil(textWidth(names)) + 14;
    const width = box.clientWidth, right = width - 18, bottom = rowHeight * names.length + 8, height = bottom + 42;
    box.replaceChildren();
    const root = svg("svg", box, { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${what} by ${noun}` });
    if (!values.length) return;
    const against = line === undefined ? [] : [line];
    const axis = logScale(Math.min(...values, ...against), Math.max(...values, ...against), left + 8, right, kind), x = axis.scale;
    for (const [value, label] of axis.ticks) {
      svg("line", root, { class: "grid", x1: x(value), x2: x(value), y1: 4, y2: bottom });
      svg("text", root, { x: x(value), y: bottom + 16, "text-anchor": "middle" }, label);
    }
    if (line !== undefined) svg("line", root, { class: "limit", x1: x(line), x2: x(line), y1: 4, y2: bottom });
    svg("text", root, { x: (left + right) / 2, y: bottom + 36, "text-anchor": "middle" }, `${what} (logarithmic)`);
    for (const [r, name] of of.names.entries()) {
      const y = 6 + rowHeight * (r + 0.5);
      const there = runs.map((_, i) => i).filter((i) => shown[i] && of.runs[i][r] && of.runs[i][r][figure] !== null);
      svg("text", root, { x: left - 7, y: y + 4, "text-anchor": "end", class: "name" }, names[r]);
      svg("line", root, { class: "grid", x1: left, x2: right, y1: y, y2: y });
      if (there.length > 1) {
        const ends = there.map((i) => x(of.runs[i][r][figure]));
        svg("line", root, { class: "reach", x1: Math.min(...ends), x2: Math.max(...ends), y1: y, y2: y });
      }
      for (const i of there) svg("circle", root, { cx: x(of.runs[i][r][figure]), cy: y, r: 4 + 0.9 * Math.min(runs.length - 1 - i, 3), style: `fill:${colourOf(i)}`, class: "dot" });
      const target = svg("rect", root, { x: 0, y: y - rowHeight / 2, width, height: rowHeight, fill: "transparent" });
      target.addEventListener("pointermove", (event) => showTip(event, `${noun} ${name || "(none)"}`, [
        [`${count(of.hours[r])} GPU h`], ...there.map((i) => {
          const [n, , rho, worst, delay] = of.runs[i][r];
          return [`${runs[i].policy}: rho ${rho === null ? "-" : FACTOR.text(rho)}, worst ${worst === null ? "-" : FACTOR.text(worst)}; delay ${delay === null ? "-" : duration(delay)} (${n.toLocaleString("en-US")} jobs)`, colourOf(i)];
        })]));
      target.addEventListener("pointerleave", hideTip);
    }
  });
}
